/** `xl migrate` between two hosts of a lab. There is no ssh: busybox's nc carries what xl would send through it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { LabError } from './errors.js';
import type { Lab } from './lab.js';

const port = 7200;
const receiver = '/run/lab-migrate-receive';
const limitMs = 600_000;

/**
 * Has a host take one guest. Returns, once it listens, a promise that fulfils when the guest runs there, with what
 * `xl -v migrate-receive` said, and rejects with a LabError if that fails. `environment`: NAME=VALUE words for it.
 */
export async function receiveOnce(host: Lab, environment: string): Promise<{ ended: Promise<string> }> {
  const script = `#!/bin/sh\nexport ${environment}\nexec xl -v migrate-receive 2>${receiver}.log\n`;
  await host.must(`cat > ${receiver} <<'EOF'\n${script}EOF\nchmod +x ${receiver}; rm -f ${receiver}.log`);
  const ended = host
    .exec(`nc -l -p ${port} -e ${receiver}; code=$?; cat ${receiver}.log; exit $code`, { timeoutMs: limitMs })
    .then(({ code, stdout }) => {
      if (code === 0) return stdout;
      throw new LabError(`${host.name}: xl migrate-receive ended with ${code}:\n${stdout}`);
    });
  // Who awaits it hears of a failure; nobody may, if the sender fails first.
  ended.catch(() => undefined);
  for (let tries = 0; (await host.exec(`netstat -ltn | grep -q :${port}`)).code !== 0; ++tries) {
    if (tries > 100) throw new LabError(`${host.name} does not listen`);
    await sleep(200);
  }
  return { ended };
}

/** The command that sends a guest to a host that waits in `receiveOnce`; `flags` of xl itself, such as -v. */
export function sendThrough(host: Lab, guest: string, flags = ''): string {
  // xl runs: COMMAND HOST xl migrate-receive
  const carry = '/run/lab-migrate-send';
  const script = `#!/bin/sh\nexec nc ${host.ip} ${port}\n`;
  return `sh -c 'printf "${script.replaceAll('\n', '\\n')}" > ${carry}; chmod +x ${carry}; xl ${flags} migrate -s ${carry} ${guest} ${host.ip}'`;
}
