/** `npm run demo`: the verb `demo`, with whatever options follow. */
process.argv.splice(2, 0, 'demo');
await import('./main.js');
