// A tool server that runs what oakallow let through, and nothing else. jose, canonicalize, no framework.
//
// Set: BACKEND (URL), TOOL_KEY (oak_tool_…), ORG, AUDIENCE, ALG (HS256 or EdDSA: the one that is set for the audience),
// BASE_URL (this server as the proxy's route names it: `upstream`), PORT.
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import canonicalize from "canonicalize";
import { errors, importJWK, jwtVerify } from "jose";

const { BACKEND, TOOL_KEY, ORG, AUDIENCE, ALG, PORT } = process.env;
const BASE_URL = process.env.BASE_URL.replace(/\/+$/, "");
const BODY_BYTES_MAX = 1024 * 1024;

// Not ours to run.
class Refused extends Error {}

const refuse = (why) => {
  throw new Refused(why);
};

// The backend's answer. Whatever goes wrong is an exception: without an answer nothing runs.
async function ask(path, body) {
  const answer = await fetch(BACKEND + path, {
    method: body ? "POST" : "GET",
    headers: { "X-API-Key": TOOL_KEY, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
    redirect: "error",
    signal: AbortSignal.timeout(5_000),
  });
  if (!answer.ok) throw new Error(`the backend answered ${answer.status}`);
  return answer.json();
}

// The audience's keys: fetched again every five minutes, and for an unknown kid (a rotation), but not more often than
// every five seconds, whoever sends what.
let keys = new Map();
let fetched = -Infinity;
let fetching = Promise.resolve();

async function fetchKeys() {
  const found = (await ask(`/v1/audiences/${AUDIENCE}/keys`)).keys;
  // A key of another kind than ours is an error here, not another way to verify.
  const kind = ALG === "EdDSA" ? "OKP" : "oct";
  if (found.some((key) => key.kty !== kind || key.alg !== ALG)) throw new Error("keys of another algorithm");
  keys = new Map(await Promise.all(found.map(async (key) => [key.kid, await importJWK(key, ALG)])));
}

async function findKey({ kid }) {
  const age = performance.now() - fetched;
  if (age > 300_000 || (!keys.has(kid) && age > 5_000)) {
    fetched = performance.now();
    fetching = fetchKeys();
  }
  await fetching;
  return keys.get(kid) ?? refuse("unknown key");
}

const sha256 = (content) => createHash("sha256").update(content).digest("base64url");

// The arguments, if the token is for exactly this request. Offline; the token is not used up by it.
async function check(token, tool, method, target, body) {
  const { payload: claims } = await jwtVerify(token, findKey, {
    algorithms: [ALG],
    typ: "oakallow-exec+jwt",
    audience: AUDIENCE,
    issuer: `oakallow/${ORG}`,
    clockTolerance: 5,
    requiredClaims: ["exp", "iat", "nbf", "jti"],
  });
  if (claims.exp - claims.iat > 60) refuse("lives too long");
  const args = JSON.parse(body.toString());
  const expected = {
    bnd: "request",
    htm: method,
    htu: BASE_URL + target,
    bdh: sha256(body),
    tool,
    ah: sha256(canonicalize(args)),
    // A tool that acts on a resource puts here which one, as it read it from the arguments.
    resource: undefined,
  };
  for (const [claim, value] of Object.entries(expected)) {
    if (claims[claim] !== value) refuse(`the token has another ${claim}`);
  }
  return args;
}

// Uses the token up. The backend says yes once.
async function redeem(token, tool, method, target, body, args) {
  const answer = await ask("/v1/tokens/verify", {
    token,
    tool_name: tool,
    htm: method,
    htu: BASE_URL + target,
    body_sha256: sha256(body),
    arguments_sha256: sha256(canonicalize(args)),
  });
  if (answer.valid !== true) refuse(answer.reason);
}

async function read(request) {
  const parts = [];
  let bytes = 0;
  for await (const part of request) {
    bytes += part.length;
    if (bytes > BODY_BYTES_MAX) refuse("too long");
    parts.push(part);
  }
  return Buffer.concat(parts);
}

async function run(request) {
  const { method, url } = request;
  const body = await read(request);
  const tokens = request.headersDistinct["x-oakallow-token"] ?? [];
  if (tokens.length !== 1) refuse("not exactly one token");
  const tool = url.split("?")[0].replace(/^\/tools\//, "");
  const args = await check(tokens[0], tool, method, url, body);
  await redeem(tokens[0], tool, method, url, body, args);
  return { ran: tool, arguments: args };
}

function refusal(error) {
  if (error instanceof Refused) return [403, error.message];
  if (error instanceof errors.JOSEError) return [403, error.code];
  if (error instanceof SyntaxError) return [403, "not JSON"];
  // The backend is away, or says what we do not understand: no.
  return [503, "the token could not be checked"];
}

const server = createServer(async (request, response) => {
  let [status, content] = [200, undefined];
  try {
    content = await run(request);
  } catch (error) {
    let why;
    [status, why] = refusal(error);
    content = { refused: why };
  }
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(content));
});
server.listen(Number(PORT), "127.0.0.1", () => console.log(`listening on 127.0.0.1:${server.address().port}`));
