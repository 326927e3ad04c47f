// openai-node against the gateway, in both URL grammars; every call is asserted.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

// Installed into a temporary folder, away from this file.
const resolve = createRequire(pathToFileURL(join(process.env.NODE_FOLDER, "index.js"))).resolve;
const openai = await import(pathToFileURL(resolve("openai")));
const { OpenAI, AzureOpenAI } = openai.default?.AzureOpenAI ? openai.default : openai;

const { GATEWAY_URL: base, GATEWAY_KEY: key, CORE_ONLY: coreOnly } = process.env;
const messages = [{ role: "user", content: "Count to ten" }];

const classic = (options = {}) =>
  new AzureOpenAI({ endpoint: base, apiKey: key, apiVersion: "2024-10-21", maxRetries: 0, ...options });
const v1 = (options = {}) =>
  new OpenAI({ baseURL: `${base}/openai/v1`, apiKey: key, maxRetries: 0, ...options });

const calls = {
  async chat(make) {
    const ask = make().chat.completions.create({ model: "gpt-4o", messages, max_tokens: 20 });
    const { data, response } = await ask.withResponse();
    assert.ok(data.choices[0].message.content);
    assert.ok(response.headers.get("x-spillover-backend"));
  },
  async stream(make) {
    const chunks = await make().chat.completions.create({
      model: "gpt-4o", messages, max_tokens: 60, stream: true,
    });
    let text = "", parts = 0, ends = 0;
    for await (const chunk of chunks) {
      for (const choice of chunk.choices) {
        text += choice.delta.content ?? "";
        parts += choice.delta.content ? 1 : 0;
        ends += choice.finish_reason ? 1 : 0;
      }
    }
    assert.ok(parts > 1, text);
    assert.equal(ends, 1);
  },
};

const more = {
  async responses(make) {
    const answer = await make().responses.create({
      model: "gpt-4o", input: "Count to ten", max_output_tokens: 20,
    });
    assert.ok(answer.output_text);
  },
  async streamedResponse(make) {
    const kinds = [];
    for await (const event of await make().responses.create({
      model: "gpt-4o", input: "Count to ten", max_output_tokens: 20, stream: true,
    })) kinds.push(event.type);
    assert.equal(kinds[0], "response.created");
    assert.match(kinds.at(-1), /^response\.(completed|incomplete)$/);
    assert.ok(kinds.includes("response.output_text.delta"));
  },
  async embeddings(make) {
    const answer = await make().embeddings.create({
      model: "text-embedding-3-small", input: ["one", "two"],
    });
    assert.equal(answer.data.length, 2);
    assert.ok(answer.data[1].embedding.length > 0);
  },
  async unknownModel(make) {
    const error = await fails(make(), "nobody-made-this");
    assert.ok(error instanceof OpenAI.NotFoundError, String(error));
    assert.equal(error.code, "DeploymentNotFound");
  },
  async wrongKey(make) {
    const error = await fails(make({ apiKey: "not-a-key" }), "gpt-4o");
    assert.ok(error instanceof OpenAI.AuthenticationError, String(error));
  },
  async refusal(make) {
    let error;
    for (let i = 0; i < 20 && !error; i += 1) error = await fails(make(), "tiny", 40);
    assert.ok(error instanceof OpenAI.RateLimitError, String(error));
    const millis = Number(error.headers.get("retry-after-ms"));
    const seconds = Number(error.headers.get("retry-after"));
    assert.ok(millis > 0 && millis <= 60_000, String(millis));
    assert.equal(seconds, Math.ceil(millis / 1000));
  },
  async ownRetries(make) {
    const ask = (client) => client.chat.completions.create(
      { model: "short", messages, max_tokens: 1 },
      { headers: { "x-emulator-prompt-tokens": "3500", "x-emulator-completion-tokens": "1" } },
    );
    let error;
    for (let i = 0; i < 20 && !error; i += 1) {
      error = await ask(make()).then(() => undefined, (refused) => refused);
    }
    assert.ok(error instanceof OpenAI.RateLimitError, String(error));
    const hint = Number(error.headers.get("retry-after-ms"));
    const began = performance.now();
    await ask(make({ maxRetries: 2 }));
    const took = performance.now() - began;
    assert.ok(took > hint - 200 && took < hint + 1000, `${took} ms for a hint of ${hint} ms`);
  },
};

async function fails(client, model, tokens = 5) {
  try {
    await client.chat.completions.create({ model, messages, max_tokens: tokens });
  } catch (error) {
    return error;
  }
  return undefined;
}

let failed = 0;
for (const [name, make] of [["AzureOpenAI", classic], ["OpenAI v1", v1]]) {
  for (const [what, call] of Object.entries(coreOnly ? calls : { ...calls, ...more })) {
    try {
      await call(make);
      console.log(`  ok      ${name}: ${what}`);
    } catch (error) {
      failed += 1;
      console.log(`  FAILED  ${name}: ${what}: ${error}`);
    }
  }
}
process.exit(failed ? 1 : 0);
