// What the built Node adapter says of a callback: its event, or the name of the error. Arguments: secret, headers, body.
import { verifyCallback } from '../../node-adapter/dist/esm/index.js';

const [secret, headers, body] = process.argv.slice(2);

function verdict(text) {
  try {
    return verifyCallback(text, new Headers(JSON.parse(headers)), { secret });
  } catch (error) {
    return error.name;
  }
}

console.log(JSON.stringify({ event: verdict(body), forged: verdict(`${body} `) }));
