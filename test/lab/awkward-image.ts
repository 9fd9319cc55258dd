import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { addLayer, buildOnce, debianSuite, type LabImages, writeLayout } from './images.ts';
import { run } from './process.ts';

/** Raise when what is built changes, so that old caches are not used. */
const RECIPE = 2;

/**
 * A Debian image of other make than the first: layers diffed by umoci, with whiteouts over lower files, hard links across
 * directories, file capabilities, device nodes, long names, far times; a last layer by hand with an opaque directory.
 */
export function prepareAwkwardImage(cacheDir: string, say: (line: string) => void): Promise<LabImages> {
  const storage = join(cacheDir, `registry-awkward-${RECIPE}`);
  return buildOnce({ storage, plain: 'lab/awkward:plain', estargz: 'lab/awkward:esgz' }, say, build);
}

async function build(work: string, say: (line: string) => void): Promise<string> {
  const suite = await debianSuite();
  const [base, more] = [join(work, 'base.tar'), join(work, 'more.tar')];
  say(`building two Debian ${suite} roots with mmdebstrap (once; they are cached)`);
  const flags = ['--variant=minbase', '--quiet'];
  await run('mmdebstrap', [...flags, suite, base], { timeoutMs: 900_000 });
  await run('mmdebstrap', [...flags, '--include=git,nginx-light', suite, more], { timeoutMs: 900_000 });
  const layout = join(work, 'layout');
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  await writeLayout(layout, [await addLayer(layout, base)]);
  const image = `${layout}:image`;
  const bundle = join(work, 'bundle');
  const root = join(bundle, 'rootfs');
  const umoci = (...args: string[]) => run('umoci', args, { timeoutMs: 600_000 });
  await umoci('unpack', '--image', image, bundle);
  await rm(root, { recursive: true });
  await mkdir(root);
  await run('tar', ['-C', root, '--xattrs', '--xattrs-include=*', '-xf', more]);
  await umoci('repack', '--refresh-bundle', '--image', image, bundle);
  await run('sh', ['-eu', '-c', CHANGES], { cwd: root });
  await umoci('repack', '--refresh-bundle', '--image', image, bundle);
  await umoci('raw', 'add-layer', '--image', image, await lastLayer(work));
  for (const path of [base, more, bundle]) await rm(path, { recursive: true });
  return layout;
}

/** What the third layer changes in the root directory it runs in. */
const CHANGES = `
rm -r usr/share/doc/git usr/share/man var/cache/apt
rm usr/bin/git-shell usr/share/common-licenses/GPL-3 usr/share/common-licenses/BSD
mkdir usr/share/common-licenses/BSD
echo now a directory > usr/share/common-licenses/BSD/file
ln usr/bin/git usr/local/bin/git-too
mkdir -p srv/links/a srv/links/b
echo shared > srv/links/a/one
ln srv/links/a/one srv/links/b/two
ln srv/links/a/one srv/links/three
cp usr/bin/perl usr/local/bin/capped
setcap cap_net_bind_service,cap_net_admin+ep usr/local/bin/capped
cp usr/bin/env usr/local/bin/setuid
chmod 6755 usr/local/bin/setuid
mkdir -m 1777 srv/sticky
mkdir -m 2750 srv/setgid
mknod srv/char c 1 7
mknod srv/block b 259 300000
mkfifo -m 620 srv/fifo
mkdir srv/sizes
: > srv/sizes/0
for size in 1 4095 4096 4097 1048576 1048577 5000000; do head -c $size usr/bin/git > srv/sizes/$size; done
truncate -s 64M srv/sparse
printf middle | dd of=srv/sparse bs=1 seek=33554432 conv=notrunc status=none
long=$(printf 'n%.0s' $(seq 255))
echo long > srv/$long
deep=srv
for level in $(seq 40); do deep=$deep/directory-$level-$(printf 'd%.0s' $(seq 20)); done
mkdir -p $deep
echo deep > $deep/file
ln -s $(printf '../%.0s' $(seq 300))etc/debian_version srv/long-link
ln -s nowhere srv/dangling
echo 'ünïcödé 名前' > 'srv/ünïcödé 名前'
echo spaces > 'srv/ spaces and "quotes" \\ backslash'
printf text > srv/attributes
setfattr -n user.text -v value srv/attributes
setfattr -n user.binary -v 0x00ff0a10 srv/attributes
setfattr -n user.empty srv/attributes
setfattr -n user.directory -v here srv/sizes
chown 12345:54321 srv/sizes/1
chown -h 100000:4000000 srv/dangling
touch -d @-86400 srv/sizes/4095
touch -d 2100-01-01T00:00:00Z srv/sizes/4096
mkdir -p etc/opaque/below srv/becomes-link/below srv/becomes-file/below
echo covered > srv/becomes-link/below/file
echo hidden > etc/opaque/hidden
echo hidden > etc/opaque/below/hidden
echo kept > etc/opaque-not
chmod 711 etc/opaque
`;

/**
 * A tar whose directory replaces the lower one, other things in the place of directories, a whiteout of one name of a
 * hard link, and parents it does not name. Not left to umoci: it writes whiteouts below what replaces a directory.
 */
async function lastLayer(work: string): Promise<string> {
  const dir = join(work, 'last');
  for (const path of ['etc/opaque', 'srv/links/b', 'opt/implied/parents'])
    await mkdir(join(dir, path), { recursive: true });
  await writeFile(join(dir, 'etc/opaque/.wh..wh..opq'), '');
  await writeFile(join(dir, 'etc/opaque/shown'), 'shown\n');
  await writeFile(join(dir, 'srv/links/b/.wh.two'), '');
  await writeFile(join(dir, 'opt/implied/parents/file'), 'file\n');
  await symlink('links', join(dir, 'srv/becomes-link'));
  await writeFile(join(dir, 'srv/becomes-file'), 'now a file\n');
  const tar = join(work, 'last.tar');
  const names = [
    'etc/opaque',
    'srv/becomes-link',
    'srv/becomes-file',
    'srv/links/b/.wh.two',
    'opt/implied/parents/file',
  ];
  await run('tar', ['--owner=0', '--group=0', '--mtime=@1700000000', '-C', dir, '-cf', tar, ...names]);
  return tar;
}
