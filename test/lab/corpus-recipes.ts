import { cp, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './process.ts';

/** How an image of the corpus is made: tars of its layers, bottom first. */
export interface CorpusRecipe {
  readonly name: string;
  /** Tags of formats that cannot express it, with the reason. */
  readonly cannot: Readonly<Record<string, string>>;
  /** Builds the layers below `work`; paths of uncompressed tars. */
  layers(work: string): Promise<string[]>;
}

/** Set SHOAL_CORPUS=full for the sizes that take minutes: 100,000 files, a file of 1 GiB. */
const IS_FULL = process.env.SHOAL_CORPUS === 'full';
const FILES = IS_FULL ? 100_000 : 10_000;
const BIG_MIB = IS_FULL ? 1024 : 48;

const MODULES = fileURLToPath(new URL('../../node_modules', import.meta.url));

/** A layer of what a shell script leaves in the directory it runs in. */
async function scripted(work: string, name: string, script: string, tarFlags: readonly string[] = []): Promise<string> {
  const root = join(work, name);
  await mkdir(root, { recursive: true });
  await run('sh', ['-eu', '-c', script], { cwd: root, timeoutMs: 600_000 });
  return await packed(work, name, tarFlags);
}

async function packed(work: string, name: string, tarFlags: readonly string[] = []): Promise<string> {
  const tar = join(work, `${name}.tar`);
  // GNU's own format holds no xattrs
  const isGnu = tarFlags.includes('--format=gnu');
  // whole seconds: conversion to eStargz rounds others up
  const times = isGnu ? [] : ['--format=posix', '--pax-option=delete=mtime,delete=atime,delete=ctime'];
  const xattrs = isGnu ? [] : ['--xattrs', '--xattrs-include=*', ...times];
  const flags = ['--numeric-owner', '--sort=name', ...xattrs, ...tarFlags];
  await run('tar', [...flags, '-C', join(work, name), '-cf', tar, '.'], { timeoutMs: 600_000 });
  return tar;
}

/** What Debian packages (without those they depend on) unpack to. */
async function debs(work: string, name: string, packages: readonly string[]): Promise<string> {
  const files = join(work, `${name}-debs`);
  const root = join(work, name);
  await mkdir(files, { recursive: true });
  await mkdir(root, { recursive: true });
  const sandbox = ['-o', 'APT::Sandbox::User=root'];
  await run('apt-get', [...sandbox, 'download', '-q', ...packages], { cwd: files, timeoutMs: 300_000 });
  for (const file of await readdir(files)) await run('dpkg-deb', ['-x', join(files, file), root]);
  return root;
}

function recipe(name: string, layers: CorpusRecipe['layers'], cannot: CorpusRecipe['cannot'] = {}): CorpusRecipe {
  return { name, layers, cannot };
}

export const CORPUS_RECIPES: readonly CorpusRecipe[] = [
  recipe('musl-busybox', async (work) => {
    const root = await debs(work, 'musl', ['musl', 'busybox-static']);
    await run('sh', ['-eu', '-c', 'for name in sh ls cat env sed; do ln -s busybox bin/$name; done'], { cwd: root });
    return [await packed(work, 'musl')];
  }),
  recipe('node', async (work) => {
    const app = join(work, 'app/srv/app/node_modules');
    await mkdir(join(work, 'node/usr/local/bin'), { recursive: true });
    await mkdir(app, { recursive: true });
    await cp(join(MODULES, 'node/bin/node'), join(work, 'node/usr/local/bin/node'), { dereference: true });
    for (const name of ['ajv', 'fast-check', 'undici']) {
      await cp(join(MODULES, name), join(app, name), { recursive: true });
    }
    return [await packed(work, 'node', ['--owner=0', '--group=0']), await packed(work, 'app', ['--owner=1000'])];
  }),
  recipe('python-wheels', async (work) => {
    const root = await debs(work, 'python', [
      'python3-minimal',
      'libpython3-stdlib',
      'python3-pip-whl',
      'python3-setuptools-whl',
    ]);
    const script = `
for wheel in usr/share/python-wheels/*.whl; do
  mkdir -p usr/local/lib/python3/dist-packages
  python3 -m zipfile -e $wheel usr/local/lib/python3/dist-packages
done`;
    await run('sh', ['-eu', '-c', script], { cwd: root });
    const cleanup = 'mkdir -p usr/share && : > usr/share/.wh.python-wheels';
    return [await packed(work, 'python'), await scripted(work, 'cleanup', cleanup)];
  }),
  recipe(`small-files-${FILES}`, async (work) => {
    const script = `
i=0
while [ $i -lt ${FILES / 1000} ]; do
  mkdir -p data/$i
  seq -f "content of file ${'%'}05g in $i" 1 1000 | (cd data/$i && split -l 1 -a 3 - f)
  i=$((i + 1))
done`;
    return [await scripted(work, 'files', script)];
  }),
  recipe(
    `big-file-${BIG_MIB}`,
    async (work) => {
      const script = `
mkdir data
openssl enc -aes-128-ctr -nosalt -pass pass:shoal -pbkdf2 -in /dev/zero 2>/dev/null | head -c ${BIG_MIB / 2}M > data/big || true
yes 'a line that compresses well, repeated' | head -c ${BIG_MIB / 2}M >> data/big
test $(stat -c %s data/big) = $((${BIG_MIB} * 1048576))`;
      return [await scripted(work, 'big', script)];
    },
    {
      zstdchunked: 'skopeo 1.9 finds no chunk boundary in repeated text and writes a layer that its own config denies',
    },
  ),
  recipe('deep-whiteouts', async (work) => {
    const tars: string[] = [];
    for (let layer = 0; layer < 12; layer += 1) {
      const before = layer - 1;
      const script = `
mkdir -p keep/a/b/c/d/e own/l${layer}/x/y
echo ${layer} > keep/a/b/c/d/e/f${layer}
echo ${layer} > keep/a/b/c/same
echo ${layer} > own/l${layer}/x/y/z
${layer > 0 && layer % 3 === 0 ? `: > own/.wh.l${before}` : ''}
${layer > 1 && layer % 4 === 1 ? `: > keep/a/b/c/d/e/.wh.f${before}` : ''}
${layer === 7 ? 'mkdir -p own/l2 && : > own/l2/.wh..wh..opq && echo only > own/l2/only' : ''}
${layer === 9 ? 'mkdir -p keep/a/b && : > keep/a/b/.wh.c && rm -r keep/a/b/c' : ''}
${layer === 10 ? 'rm -r keep/a/b/c && mkdir -p keep/a/b/c && echo back > keep/a/b/c/again' : ''}`;
      tars.push(await scripted(work, `layer${layer}`, script));
    }
    return tars;
  }),
  recipe('hard-links', async (work) => {
    const first = `
mkdir -p a b/c d
head -c 70000 /bin/sh > a/one
ln a/one a/two; ln a/one b/c/three; ln a/two d/four
for n in $(seq 200); do echo $n > d/f$n; ln d/f$n b/l$n; done
ln -s one a/sym; ln a/sym d/sym-too
mkfifo a/pipe; ln a/pipe b/pipe-too`;
    const second = 'mkdir -p a d && echo new > d/four && : > a/.wh.one && chown 3:4 . && chmod 700 .';
    return [await scripted(work, 'first', first), await scripted(work, 'second', second)];
  }),
  recipe('capabilities', async (work) => {
    const script = `
mkdir -p bin etc
for n in 1 2 3; do cp /bin/true bin/cap$n; done
setcap cap_net_raw+ep bin/cap1; setcap cap_net_bind_service,cap_sys_ptrace=eip bin/cap2
cp /bin/true bin/suid; chmod 4711 bin/suid; cp /bin/true bin/sgid; chmod 2755 bin/sgid; chown 1:4000000000 bin/sgid
chmod 0 etc; mkdir -m 3777 tmp; setfattr -n user.k -v 0x00ff etc; setfattr -n user.long -v $(head -c 3000 /dev/zero | tr '\\0' x) tmp`;
    return [await scripted(work, 'caps', script)];
  }),
  recipe('sparse', async (work) => {
    const script = `
mkdir s
truncate -s 100M s/empty
truncate -s 40M s/middle; printf middle | dd of=s/middle bs=1 seek=20000001 conv=notrunc status=none
printf start > s/start; truncate -s 30M s/start
truncate -s 10000000 s/end; printf end >> s/end
for n in $(seq 0 9); do printf $n | dd of=s/many bs=1 seek=$((n * 1000003)) conv=notrunc status=none; done`;
    // Zeros, not sparse entries of the tar: containerd refuses GNU's, and ctr-remote cannot convert those of pax.
    return [await scripted(work, 'zeros', script)];
  }),
  recipe('long-names', async (work) => {
    const script = (top: string): string => `
mkdir ${top}
name=$(printf 'n%.0s' $(seq 255))
echo x > ${top}/$name; mkdir ${top}/d$(printf 'd%.0s' $(seq 254))
deep=${top}; for n in $(seq 30); do deep=$deep/$n-$(printf 'p%.0s' $(seq 60)); done
mkdir -p $deep; echo deep > $deep/file; ln $deep/file $deep/$(printf 'l%.0s' $(seq 200))
ln -s $(printf '../%.0s' $(seq 600))target ${top}/long-link
echo u > '${top}/ünïcödé 名前 \\ " quote'; echo nl > '${top}/new
line'; echo '-' > '${top}/-dash'; echo '*' > '${top}/*'`;
    return [await scripted(work, 'gnu', script('gnu'), ['--format=gnu']), await scripted(work, 'pax', script('pax'))];
  }),
  recipe(
    'not-utf8',
    async (work) => [
      await scripted(work, 'latin', `mkdir d; echo x > "$(printf 'd/caf\\351')"; ln -s "$(printf 'caf\\351')" d/link`),
    ],
    { esgz: 'its JSON holds UTF-8 only', zstdchunked: 'its JSON holds UTF-8 only' },
  ),
  recipe('nodes-and-times', async (work) => {
    const script = `
mkdir -p dev t
mknod dev/null c 1 3; mknod dev/big c 511 1048575; mknod dev/block b 8 1; mkfifo -m 600 dev/fifo
for t in 0 1 1700000000.5 4000000000; do : > t/$t; touch -d @$t t/$t; done
ln -s nowhere t/link; touch -h -d @1234567890 t/link; chown -h 7:8 t/link
for size in 0 1 511 512 513 4095 4096 4097 65536 1048577; do head -c $size /bin/sh > t/size-$size; done
touch -d @1000000000 dev t`;
    return [await scripted(work, 'nodes', script)];
  }),
  recipe('changes-of-type', async (work) => {
    const first =
      'mkdir -p d1/x d2/x; echo 1 > f1; echo 2 > f2; ln -s f1 l1; ln -s d1 l2; echo y > d1/x/y; echo y > d2/x/y';
    const second =
      'mkdir f1 l2; echo new > f1/in; echo new > l2/in; echo now a file > d1; ln -s d1 f2; echo plain > l1';
    const third = 'mkdir d1; echo again > d1/z; : > .wh.f2; mkdir d2; : > d2/.wh..wh..opq';
    return [
      await scripted(work, 'first', first),
      await scripted(work, 'second', second),
      await scripted(work, 'third', third),
    ];
  }),
];
