/** The one table that names the verbs: parser, help, documentation and tests are driven by it. */
import { globalOptions } from '../global_options.js';
import type { Verb } from '../verb.js';
import { bisect } from '../verbs/bisect.js';
import { checkpoint } from '../verbs/checkpoint.js';
import { completion } from '../verbs/completion.js';
import { create } from '../verbs/create.js';
import { demo } from '../verbs/demo.js';
import { destroy } from '../verbs/destroy.js';
import { digest } from '../verbs/digest.js';
import { domstate } from '../verbs/domstate.js';
import { dumpCore } from '../verbs/dump_core.js';
import { hostStart } from '../verbs/host_start.js';
import { hostStatus } from '../verbs/host_status.js';
import { hostStop } from '../verbs/host_stop.js';
import { imageCheck } from '../verbs/image_check.js';
import { imageConvert } from '../verbs/image_convert.js';
import { imageInspect } from '../verbs/image_inspect.js';
import { imageVerify } from '../verbs/image_verify.js';
import { keyForget, keyList, keyShow, keyTrust } from '../verbs/key.js';
import { list } from '../verbs/list.js';
import { pause } from '../verbs/pause.js';
import { pointPin, pointUnpin, pointVerify } from '../verbs/point.js';
import { pointDiff } from '../verbs/point_diff.js';
import { pointExport } from '../verbs/point_export.js';
import { pointFlatten } from '../verbs/point_flatten.js';
import { points } from '../verbs/points.js';
import { protect } from '../verbs/protect.js';
import { prune } from '../verbs/prune.js';
import { restore } from '../verbs/restore.js';
import { rollback } from '../verbs/rollback.js';
import { save } from '../verbs/save.js';
import { unpause } from '../verbs/unpause.js';
import { version } from '../verbs/version.js';

export const verbs: readonly Verb[] = [
  create,
  list,
  domstate,
  pause,
  unpause,
  destroy,
  save,
  restore,
  checkpoint,
  rollback,
  bisect,
  protect,
  points,
  prune,
  pointPin,
  pointUnpin,
  pointVerify,
  pointDiff,
  pointExport,
  pointFlatten,
  digest,
  dumpCore,
  imageInspect,
  imageVerify,
  imageCheck,
  imageConvert,
  keyList,
  keyShow,
  keyTrust,
  keyForget,
  hostStart,
  hostStop,
  hostStatus,
  demo,
  completion(() => ({ verbs, groups, globalOptions })),
  version,
];

/** First words that several verbs share. */
export const groups: Readonly<Record<string, string>> = {
  image: 'Inspects, verifies, checks and converts images',
  point: 'Pins, verifies, compares, exports and flattens points of a domain',
  key: 'Shows and trusts the keys that sign images',
  host: 'Starts, stops and describes embedded hosts',
};
