/** A rollback that kills itself with SIGKILL at one call of the host: HOST GUEST IMAGE NUMBER before|after. */
import { openEmbeddedHost } from '../../src/host/open/open_host.js';
import { rollback } from '../../src/rollback/rollback.js';
import { steppingHost } from './stepping_host.js';

const [name = '', guest = '', image = '', number = '', when = ''] = process.argv.slice(2);
const real = await openEmbeddedHost(name);
const { host, steps } = steppingHost(real, (call, at, called) => {
  // A lease that ends lets go what a dead tool's would: there is nothing after it.
  if (call === Number(number) && at === when) {
    process.stdout.write(`${called}\n`);
    process.kill(process.pid, 'SIGKILL');
  }
});
await rollback(host, guest, image);
process.stdout.write(`${steps.calls} calls\n`);
process.exit(0);
