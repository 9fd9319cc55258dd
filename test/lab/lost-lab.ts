/** Run as a program: makes a lab of one host with a process in it, prints its name and dies without tidying up. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { claimLab } from './lab-name.ts';
import { createNetwork } from './network.ts';
import { inNetwork } from './process.ts';

const { name, dir } = await claimLab();
const network = await createNetwork(name, [{ name: 'h0', number: 10, rate: '1gbit' }]);
const [command, ...args] = inNetwork(network.netnsOf('h0'), ['sh', '-c', `sleep 600; : ${join(dir, 'mark')}`]);
spawn(command, args, { detached: true, stdio: 'ignore' }).unref();
process.stdout.write(`${name}\n`, () => process.kill(process.pid, 'SIGKILL'));
