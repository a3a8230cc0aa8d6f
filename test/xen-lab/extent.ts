/** How much the tests do of what may be done as often as one likes; with DORMOUSE_LAB_SHORT=1 they take a third of the time. */
const short = process.env.DORMOUSE_LAB_SHORT === '1';

function setting(name: string, whole: number, inShort: number): number {
  return Number(process.env[name] ?? (short ? inShort : whole));
}

/** Light checkpoints in a row. */
export const checkpoints = setting('DORMOUSE_LAB_CHECKPOINTS', 200, 6);
/** Suspensions in a row, and the vCPUs of the PV guests that see them. */
export const suspensions = { times: short ? 5 : 20, pvVcpus: short ? [2] : [1, 2] };
/** Light checkpoints of each guest that are compared page by page, and those guests. */
export const contents = {
  times: setting('DORMOUSE_LAB_CONTENTS', 20, 1),
  guests: [
    ...(short
      ? []
      : ([
          ['pv', 1],
          ['pvh', 1],
        ] as const)),
    ['pv', 2],
    ['pvh', 2],
  ] as readonly (readonly ['pv' | 'pvh', number])[],
};
/** Random moments at which a process is killed. */
export const kills = setting('DORMOUSE_LAB_KILLS', 50, 6);
/** Times that a guest is taken back in place, and tools that are killed at that. */
export const rollbacks = {
  times: setting('DORMOUSE_LAB_ROLLBACKS', 10, 2),
  kills: setting('DORMOUSE_LAB_ROLLBACK_KILLS', 25, 2),
};
/** Points of each guest, one a second, before it is taken back to some of them. */
export const pointsInARow = setting('DORMOUSE_LAB_POINTS', 120, 4);
/** How long a guest checks itself after it was restored or migrated, in ticks of a second. */
export const watchedTicks = setting('DORMOUSE_LAB_TICKS', 30, 3);
/** Memory of the guests that dormouse and xl work on side by side, and their types. */
export const sideBySide = {
  sizesMib: (process.env.DORMOUSE_LAB_SIZES ?? '128').split(',').map(Number),
  types: short ? (['pvh'] as const) : (['pvh', 'pv'] as const),
};
/** How long one test file may take. */
export const fileLimitMs = setting('DORMOUSE_LAB_FILE_MS', 14_400_000, 1_200_000);
