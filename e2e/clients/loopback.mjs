// Preloaded into a server (`node --import`): whatever it listens on becomes loopback, and it says which port.
import { Server } from "node:net";

const listen = Server.prototype.listen;
Server.prototype.listen = function (...args) {
  const callback = args.find((arg) => typeof arg === "function");
  const port = Number(typeof args[0] === "object" && args[0] !== null ? args[0].port : args[0]);
  this.once("listening", () => console.log(`loopback port ${this.address().port}`));
  return listen.call(this, { host: "127.0.0.1", port }, callback);
};
