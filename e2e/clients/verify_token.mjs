// A tool server's check of an execution token with jose and nothing of ours: algorithm, type, audience and
// issuer are pinned here, never taken from the token. Then it is redeemed, twice.
import { createHash } from "node:crypto";
import { UnsecuredJWT, decodeProtectedHeader, importJWK, jwtVerify } from "jose";
import { env, run, say } from "./say.mjs";

async function backend(path, body) {
  const answer = await fetch(env("BACKEND") + path, {
    method: body ? "POST" : "GET",
    headers: { "X-API-Key": env("TOOL_KEY"), "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

async function verify(token, keys, audience) {
  const { kid } = decodeProtectedHeader(token);
  const key = await importJWK(keys.keys.find((key) => key.kid === kid), "HS256");
  const { payload } = await jwtVerify(token, key, {
    algorithms: ["HS256"],
    typ: "oakallow-exec+jwt",
    audience,
    issuer: keys.issuer,
    clockTolerance: 5,
    requiredClaims: ["exp", "iat", "nbf", "jti"],
  });
  return payload;
}

const refused = (token, keys, audience) =>
  verify(token, keys, audience).then(() => "accepted", (error) => error.code ?? error.name);

function altered(token) {
  const [head, claims, signature] = token.split(".");
  const text = Buffer.from(claims, "base64url").toString();
  const forged = text.replace('"tool":"read_record"', '"tool":"drop_database"');
  return [head, Buffer.from(forged).toString("base64url"), signature].join(".");
}

await run(async () => {
  const [token, audience] = [env("TOKEN"), env("AUDIENCE")];
  const keys = await backend(`/v1/audiences/${audience}/keys`);
  const claims = await verify(token, keys, audience);
  const digest = createHash("sha256").update(env("BODY")).digest("base64url");
  // Plain names and texts: sorted keys without white space are their canonical form (RFC 8785).
  const canonical = JSON.stringify(Object.fromEntries(Object.entries(JSON.parse(env("BODY"))).sort()));
  const read = createHash("sha256").update(canonical).digest("base64url");
  say("verified", { claims, body_fits: claims.bdh === digest, arguments_fit: claims.ah === read });
  say("refused", {
    altered: await refused(altered(token), keys, audience),
    audience: await refused(token, keys, "elsewhere"),
    unsigned: await refused(new UnsecuredJWT(claims).encode(), keys, audience),
  });
  const redeem = { token, tool_name: claims.tool, body_sha256: digest, arguments_sha256: read };
  say("redeemed", { first: await backend("/v1/tokens/verify", redeem), second: await backend("/v1/tokens/verify", redeem) });
});
