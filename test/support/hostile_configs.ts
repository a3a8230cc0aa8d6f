/**
 * Configurations of libxl that ask for something of the host: each names what `restore` must list. `marker` is a script
 * and a file that show whether anything was started or opened.
 */
type Json = Record<string, unknown>;

export interface HostileConfig {
  readonly name: string;
  /** Laid over a harmless configuration. */
  readonly c_info?: Json;
  readonly b_info?: Json;
  readonly top?: Json;
  /** A place of what must be listed. */
  readonly listed: string;
  /** The whole text instead. */
  readonly text?: (harmless: Json) => string;
}

/** `type` is that of the guest; `script` and `file` exist. */
export function hostileConfigs(type: 'pv' | 'pvh', script: string, file: string): HostileConfig[] {
  const build = (name: string, value: unknown): HostileConfig => ({
    name: `b_info.${name}`,
    b_info: { [name]: value },
    listed: `b_info.${name}`,
  });
  const create = (name: string, value: unknown): HostileConfig => ({
    name: `c_info.${name}`,
    c_info: { [name]: value },
    listed: `c_info.${name}`,
  });
  const device = (list: string, one: Json, field: string): HostileConfig => ({
    name: `${list}.${field}`,
    top: { [list]: [one] },
    listed: `${list}[0].${field}`,
  });
  const disk = { vdev: 'xvda', format: 'raw', readwrite: 1, pdev_path: file };
  const keyed = `type.${type}`;
  return [
    device('disks', disk, 'pdev_path'),
    device('disks', { ...disk, script }, 'script'),
    device('disks', { ...disk, backend_domname: 'Domain-0' }, 'backend_domname'),
    device('disks', { ...disk, backend: 'qdisk' }, 'backend'),
    device('nics', { devid: 0, bridge: 'xenbr0' }, 'bridge'),
    device('nics', { devid: 0, script }, 'script'),
    device('nics', { devid: 0, ifname: 'eth0' }, 'ifname'),
    device('nics', { devid: 0, backend_domid: 0, gatewaydev: 'eth0' }, 'gatewaydev'),
    device('pcidevs', { func: 0, dev: 1, bus: 0, domain: 0, seize: true }, 'dev'),
    device('rdms', { start: 0, size: 4096 }, 'size'),
    device('dtdevs', { path: '/soc/uart' }, 'path'),
    device('vfbs', { devid: 0, vnc: { enable: 'True', listen: '0.0.0.0' } }, 'vnc.listen'),
    device('vkbs', { devid: 0 }, 'devid'),
    device('vtpms', { devid: 0, backend_domname: 'vtpmmgr' }, 'backend_domname'),
    device('p9s', { devid: 0, tag: 'root', path: '/', security_model: 'none' }, 'path'),
    device('pvcallsifs', { devid: 0 }, 'devid'),
    device('vdispls', { devid: 0, be_alloc: true }, 'be_alloc'),
    device('vsnds', { devid: 0, short_name: 'card' }, 'short_name'),
    device(
      'channels',
      { devid: 0, name: 'agent', 'connection.socket': { path: file } },
      'connection.socket.path',
    ),
    device('usbctrls', { devid: 0, version: 2 }, 'version'),
    device(
      'usbdevs',
      { ctrl: 0, port: 1, 'type.hostdev': { hostbus: 1, hostaddr: 1 } },
      'type.hostdev.hostbus',
    ),
    build('kernel', file),
    build('ramdisk', file),
    build('bootloader', script),
    build('bootloader_args', ['--from', file]),
    build('device_model', script),
    build('device_model_version', 'qemu_xen_traditional'),
    build('device_model_user', 'root'),
    build('device_model_stubdomain', 'True'),
    build('stubdomain_kernel', file),
    build('stubdomain_ramdisk', file),
    build('extra', ['-chardev', `file,id=a,path=${file}`]),
    build('extra_pv', ['-monitor', 'tcp::4444,server']),
    build('device_tree', file),
    build('ioports', [{ first: 0x3f8, number: 8 }]),
    build('irqs', [4]),
    build('iomem', [{ start: 0, number: 1, gfn: 0 }]),
    build('vcpu_hard_affinity', [[0]]),
    build('nodemap', [0]),
    build('vmtrace_buf_kb', 1 << 20),
    build('max_grant_frames', 1 << 20),
    build('exec_ssid_label', 'system_u:system_r:dom0_t'),
    {
      name: keyed,
      b_info: {
        [keyed]:
          type === 'pv' ? { bootloader: script, e820_host: 'True' } : { pvshim: 'True', pvshim_path: file },
      },
      listed: type === 'pv' ? 'b_info.type.pv.bootloader' : 'b_info.type.pvh.pvshim_path',
    },
    {
      name: 'another type',
      c_info: { type: 'hvm' },
      b_info: { 'type.hvm': { firmware: file, serial: `file:${file}`, vnc: { enable: 'True' } } },
      listed: 'b_info.type.hvm.serial',
    },
    create('xsdata', { 'device-model/0/state': 'running' }),
    create('platformdata', { a: 'b' }),
    create('pool_name', 'other'),
    create('driver_domain', 'True'),
    create('passthrough', 'sync_pt'),
    { name: 'on_crash', top: { on_crash: 'coredump_destroy' }, listed: 'on_crash' },
    { name: 'unknown', top: { of_another_release: [{ run: script }] }, listed: 'of_another_release[0].run' },
    {
      // libxl takes the first of two fields of one name, JSON the last.
      name: 'two fields of one name',
      text: (harmless) =>
        JSON.stringify(harmless)
          .replace('{', `{"disks":[${JSON.stringify({ ...disk, script })}],`)
          .replace(/\}$/, ',"disks":[]}'),
      listed: '',
    },
    {
      name: 'prototype',
      text: (harmless) =>
        JSON.stringify(harmless).replace('{', `{"__proto__":{"disks":[${JSON.stringify(disk)}]},`),
      listed: '__proto__.disks[0].pdev_path',
    },
  ];
}

/** What any guest of that type may have. */
export const harmlessConfig = (
  type: 'pv' | 'pvh',
  domain: { name: string; uuid: string; kib: number },
): Json => ({
  c_info: { type, name: domain.name, uuid: domain.uuid, run_hotplug_scripts: 'True' },
  b_info: {
    max_vcpus: 1,
    avail_vcpus: [0],
    max_memkb: domain.kib,
    target_memkb: domain.kib,
    [`type.${type}`]: {},
  },
  on_reboot: 'destroy',
});

/** The text of one, over a harmless configuration. */
export function hostileText(harmless: Json, hostile: HostileConfig): string {
  if (hostile.text) return hostile.text(harmless);
  const { c_info: create, b_info: build } = harmless as { c_info: Json; b_info: Json };
  const types = hostile.c_info?.['type'] === undefined ? build : {};
  return JSON.stringify({
    ...harmless,
    c_info: { ...create, ...hostile.c_info },
    b_info: { ...types, ...hostile.b_info },
    ...hostile.top,
  });
}
