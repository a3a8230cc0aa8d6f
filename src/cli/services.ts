/** The engine as the verbs see it; each part is loaded when it is first used, so that `list` need not load codecs. */
import type { bisect } from '../bisect/bisect.js';
import type { checkpoint } from '../checkpoint/checkpoint.js';
import type { DemoResult, DemoTalk } from '../demo/demo.js';
import type { digestDomain, digestImage } from '../digest/digest.js';
import type { exportPoint } from '../convert/export_point.js';
import type { flattenPoint } from '../convert/flatten_point.js';
import type { diffPoints } from '../diff/points.js';
import type { dumpCore } from '../dump/dump_core.js';
import type { Host } from '../host/contract.js';
import type { hostStatus, startHost, stopHost } from '../host/embedded/lifecycle.js';
import type { detectFormat } from '../xenstream/detect.js';
import type { convertFromXen } from '../convert/from_xen.js';
import type { convertToXen } from '../convert/to_xen.js';
import type { inspectImage } from '../image/inspect.js';
import type { verifyImage } from '../image/verify.js';
import type { SignerState, signerState } from '../restore/trust.js';
import type { checkImage } from '../restore/check.js';
import type { protect } from '../protect/protect.js';
import type { listPoints, pinPoint, prunePoints, verifyPoints } from '../store/by_name.js';
import type { restorePoint } from '../restore/from_point.js';
import type { restore } from '../restore/restore.js';
import type { rollback } from '../rollback/rollback.js';
import type { rollbackToPoint } from '../rollback/to_point.js';
import type { save } from '../save/save.js';
import type { forgetKey, listKeys, showKey, trustKey } from '../trust/keys.js';

export interface Services {
  openHost(selector: string | undefined): Promise<Host>;
  readonly startHost: typeof startHost;
  readonly stopHost: typeof stopHost;
  readonly hostStatus: typeof hostStatus;
  readonly save: typeof save;
  readonly restore: typeof restore;
  readonly restorePoint: typeof restorePoint;
  readonly checkImage: typeof checkImage;
  readonly checkpoint: typeof checkpoint;
  readonly rollback: typeof rollback;
  readonly rollbackToPoint: typeof rollbackToPoint;
  readonly bisect: typeof bisect;
  readonly protect: typeof protect;
  readonly listPoints: typeof listPoints;
  readonly prunePoints: typeof prunePoints;
  readonly pinPoint: typeof pinPoint;
  readonly verifyPoints: typeof verifyPoints;
  readonly diffPoints: typeof diffPoints;
  readonly exportPoint: typeof exportPoint;
  readonly flattenPoint: typeof flattenPoint;
  readonly dumpCore: typeof dumpCore;
  readonly digestDomain: typeof digestDomain;
  readonly digestImage: typeof digestImage;
  readonly inspectImage: typeof inspectImage;
  readonly verifyImage: typeof verifyImage;
  readonly detectFormat: typeof detectFormat;
  readonly convertFromXen: typeof convertFromXen;
  readonly convertToXen: typeof convertToXen;
  readonly signerState: (...args: Parameters<typeof signerState>) => Promise<SignerState>;
  readonly keys: {
    list(): Promise<ReturnType<typeof listKeys>>;
    show(): Promise<ReturnType<typeof showKey>>;
    trust(...args: Parameters<typeof trustKey>): Promise<ReturnType<typeof trustKey>>;
    readonly forget: typeof forgetKey;
  };
  demo(talk: DemoTalk): Promise<DemoResult>;
}

const lifecycle = (): Promise<typeof import('../host/embedded/lifecycle.js')> =>
  import('../host/embedded/lifecycle.js');

const points = (): Promise<typeof import('../store/by_name.js')> => import('../store/by_name.js');

const keys = (): Promise<typeof import('../trust/keys.js')> => import('../trust/keys.js');

export const engine: Services = {
  openHost: async (selector) => await (await import('../host/open/open_host.js')).openHost(selector),
  startHost: async (options) => await (await lifecycle()).startHost(options),
  stopHost: async (...args) => await (await lifecycle()).stopHost(...args),
  hostStatus: async (name) => await (await lifecycle()).hostStatus(name),
  save: async (...args) => await (await import('../save/save.js')).save(...args),
  restore: async (...args) => await (await import('../restore/restore.js')).restore(...args),
  restorePoint: async (...args) => await (await import('../restore/from_point.js')).restorePoint(...args),
  checkImage: async (...args) => await (await import('../restore/check.js')).checkImage(...args),
  checkpoint: async (...args) => await (await import('../checkpoint/checkpoint.js')).checkpoint(...args),
  rollback: async (...args) => await (await import('../rollback/rollback.js')).rollback(...args),
  rollbackToPoint: async (...args) =>
    await (await import('../rollback/to_point.js')).rollbackToPoint(...args),
  bisect: async (...args) => await (await import('../bisect/bisect.js')).bisect(...args),
  protect: async (...args) => await (await import('../protect/protect.js')).protect(...args),
  listPoints: async (...args) => await (await points()).listPoints(...args),
  prunePoints: async (...args) => await (await points()).prunePoints(...args),
  pinPoint: async (...args) => await (await points()).pinPoint(...args),
  verifyPoints: async (...args) => await (await points()).verifyPoints(...args),
  diffPoints: async (...args) => await (await import('../diff/points.js')).diffPoints(...args),
  exportPoint: async (...args) => await (await import('../convert/export_point.js')).exportPoint(...args),
  flattenPoint: async (...args) => await (await import('../convert/flatten_point.js')).flattenPoint(...args),
  dumpCore: async (...args) => await (await import('../dump/dump_core.js')).dumpCore(...args),
  digestDomain: async (...args) => await (await import('../digest/digest.js')).digestDomain(...args),
  digestImage: async (...args) => await (await import('../digest/digest.js')).digestImage(...args),
  inspectImage: async (path) => await (await import('../image/inspect.js')).inspectImage(path),
  verifyImage: async (...args) => await (await import('../image/verify.js')).verifyImage(...args),
  detectFormat: async (path) => await (await import('../xenstream/detect.js')).detectFormat(path),
  convertFromXen: async (...args) => await (await import('../convert/from_xen.js')).convertFromXen(...args),
  convertToXen: async (...args) => await (await import('../convert/to_xen.js')).convertToXen(...args),
  signerState: async (...args) => (await import('../restore/trust.js')).signerState(...args),
  keys: {
    list: async () => (await keys()).listKeys(),
    show: async () => (await keys()).showKey(),
    trust: async (...args) => (await keys()).trustKey(...args),
    forget: async (...args) => await (await keys()).forgetKey(...args),
  },
  demo: async (talk) => await (await import('../demo/demo.js')).runDemo(talk),
};
