import type { Command } from './command.ts';
import { checkContainerd, checkDaemon, checkDisk, checkKernel, checkRegistry } from './doctor/checks.ts';
import type { DoctorFinding } from './doctor/finding.ts';
import { EXIT } from './exit-code.ts';
import { type Io, paint, printable } from './output.ts';

const TINT = { ok: 'green', warn: 'yellow', fail: 'red' } as const;

/** `shoal doctor`: what is wrong with this machine, and what to type. */
export const doctorCommand: Command = {
  name: 'doctor',
  args: '',
  argCount: { min: 0, max: 0 },
  summary: 'check kernel, disk, containerd and registry, and say what to type',
  description:
    'Tries what shoal needs of this machine and prints one line per finding: ok, warn (works, but not at its best) or\nfail, with what to type or to write where. Changes nothing. Fails with exit code 1 when a finding is a fail.',
  options: {
    json: { type: 'boolean', description: 'print JSON' },
    registry: { type: 'string', value: 'REF', description: 'also try to look up this image in its registry' },
    'containerd-config': {
      type: 'string',
      value: 'PATH',
      description: "containerd's configuration (default /etc/containerd/config.toml)",
    },
    'containerd-socket': {
      type: 'string',
      value: 'PATH',
      description: "containerd's socket (default /run/containerd/containerd.sock)",
    },
  },
  async run({ config, options, io, signal }) {
    const effective = config();
    const findings = [
      ...(await checkKernel(effective.root, effective.trap.kind)),
      ...checkDisk(effective.root),
      ...(await checkContainerd(
        {
          socket: stringOption(options['containerd-socket'], '/run/containerd/containerd.sock'),
          configPath: stringOption(options['containerd-config'], '/etc/containerd/config.toml'),
        },
        effective.snapshotter.socket,
      )),
      ...(await checkDaemon(effective.control.socket)),
    ];
    const reference = options.registry;
    if (typeof reference === 'string') findings.push(...(await checkRegistry(effective, reference, signal)));
    io.out(options.json === true ? `${JSON.stringify({ findings }, null, 2)}\n` : renderFindings(findings, io));
    return findings.some(({ level }) => level === 'fail') ? EXIT.failure : EXIT.ok;
  },
};

/** Findings as people read them. */
export function renderFindings(findings: readonly DoctorFinding[], io: Pick<Io, 'hasColour'>): string {
  const width = Math.max(...findings.map(({ area }) => area.length));
  const indent = ' '.repeat('fail'.length + width + 4);
  const lines = findings.map(({ area, level, text, fix }) => {
    const head = `${paint(io, TINT[level], level.padEnd(4))}  ${area.padEnd(width)}  ${printable(text)}\n`;
    return fix === undefined ? head : `${head}${indent}-> ${fix.replaceAll('\n', `\n${indent}   `)}\n`;
  });
  const count = (level: string): number => findings.filter((finding) => finding.level === level).length;
  return `${lines.join('')}\n${count('ok')} ok, ${count('warn')} warn, ${count('fail')} fail\n`;
}

function stringOption(value: unknown, fallback: string): string {
  return typeof value === 'string' ? value : fallback;
}
