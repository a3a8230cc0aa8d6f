/** `npm run bench`: one JSON line per figure, each beside its limit or peer. */
process.stdout.write('');
