// openai-node against a gateway whose backends replay the corpus; every case is asserted.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

// Installed into a temporary folder, away from this file.
const resolve = createRequire(pathToFileURL(join(process.env.NODE_FOLDER, "index.js"))).resolve;
const openai = await import(pathToFileURL(resolve("openai")));
const { OpenAI, AzureOpenAI } = openai.default?.AzureOpenAI ? openai.default : openai;

const { GATEWAY_URL: base, GATEWAY_KEY: apiKey } = process.env;
const messages = [{ role: "user", content: "Say hello" }];
const options = { apiKey, maxRetries: 0, timeout: 20_000 };
const chats = new AzureOpenAI({ endpoint: base, apiVersion: "2024-10-21", ...options });
const responses = new OpenAI({ baseURL: `${base}/openai/v1`, ...options });
const kinds = {
  400: OpenAI.BadRequestError,
  402: OpenAI.APIError, // there is no class of its own
  403: OpenAI.PermissionDeniedError,
  404: OpenAI.NotFoundError,
  410: OpenAI.APIError,
  413: OpenAI.APIError,
  429: OpenAI.RateLimitError,
  502: OpenAI.InternalServerError,
  503: OpenAI.InternalServerError,
};

async function ask(model, api, stream) {
  let text = "";
  if (api === "chat") {
    const answer = await chats.chat.completions.create({ model, messages, stream });
    if (!stream) return answer.choices[0].message.content;
    for await (const chunk of answer) for (const choice of chunk.choices) text += choice.delta.content ?? "";
    return text;
  }
  const answer = await responses.responses.create({ model, input: "Say hello", stream });
  if (!stream) return answer.output_text;
  const events = [];
  for await (const event of answer) {
    events.push(event.type);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.equal(events.filter((type) => type === "response.created").length, 1);
  assert.equal(events.at(-1), "response.completed");
  return text;
}

async function check([model, api, form, status, wait]) {
  let text;
  try {
    text = await ask(model, api, form === "stream");
  } catch (error) {
    assert.ok(kinds[status] && error instanceof kinds[status], `${error} instead of ${status}`);
    if (wait === "-") return;
    const millis = Number(error.headers.get("retry-after-ms"));
    assert.ok(millis >= wait - 500 && millis <= wait, `${millis} ms instead of ${wait}`);
    assert.equal(Number(error.headers.get("retry-after")), Math.ceil(millis / 1000));
    return;
  }
  assert.equal(status, "200", `an answer instead of ${status}`);
  assert.equal(text, "Hello");
}

const cases = readFileSync(process.env.CASES, "utf8").trim().split("\n").map((line) => line.split("\t"));
let failed = 0;
for (const one of cases) {
  try {
    await check(one);
  } catch (error) {
    failed += 1;
    console.log(`  FAILED  ${one[0]}: ${error}`);
  }
}
console.log(`openai-node: ${cases.length - failed} of ${cases.length} cases`);
process.exit(failed || cases.length < 60 ? 1 : 0);
