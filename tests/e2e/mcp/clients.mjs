// clients.mjs - a server driven through the stock MCP clients: node clients.mjs NPM-FOLDER ROOT KIND COMMAND...
//
// KIND is `sdk` (version 1), `legacy` or `modern` (version 2 in either era). ROOT holds a.py and is one of the server's
// --root folders. Prints a line for each check that failed; the exit status says whether any did.
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import path from "node:path";

const [npm, root, kind, command, ...args] = process.argv.slice(2);
const require = createRequire(path.join(npm, "package.json"));
let failed = 0,
    passed = 0;

function check(what, holds, seen) {
    if (holds) passed++;
    else {
        failed++;
        console.log(`FAILED: ${kind}: ${what}`, seen === undefined ? "" : JSON.stringify(seen));
    }
}

function load() {
    if (kind === "sdk") {
        const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
        const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");
        return { Client, StdioClientTransport };
    }
    const { Client } = require("@modelcontextprotocol/client");
    const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");
    return { Client, StdioClientTransport };
}

const { Client, StdioClientTransport } = load();
const options = kind === "modern" ? { versionNegotiation: { mode: "auto" } } : {};
const client = new Client({ name: "redraft-test", version: "1" }, options);
const transport = new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" });
const complaints = [];

client.onerror = (e) => complaints.push(String(e));

// Version 1 takes a schema between the two.
function call(name, params, more) {
    const request = { name, arguments: params };
    return kind === "sdk" ? client.callTool(request, undefined, more) : client.callTool(request, more);
}

function textOf(result) {
    return result.content?.[0]?.text ?? "";
}

function isGood(what, result) {
    check(`${what} is no error`, !result.isError, textOf(result));
    check(`${what} has structured content`, typeof result.structuredContent === "object");
    let same = false;
    try {
        same = JSON.stringify(JSON.parse(textOf(result))) === JSON.stringify(result.structuredContent);
    } catch {
        // text that is no JSON is not the same
    }
    check(`${what} has the same as text`, same, textOf(result));
}

function isBad(what, result, part) {
    check(`${what} is an error`, result.isError === true, result);
    check(`${what} has no structured content`, result.structuredContent === undefined);
    check(`${what} says ${part}`, textOf(result).includes(part), textOf(result));
}

function apply(edits, text) {
    const bytes = Buffer.from(text);
    const parts = [];
    let at = 0;
    for (const e of edits) {
        parts.push(bytes.subarray(at, e.start), Buffer.from(e.text));
        at = e.end;
    }
    return Buffer.concat([...parts, bytes.subarray(at)]).toString();
}

async function lists() {
    const { tools } = await client.listTools();
    check("the tools are four", tools.map((t) => t.name).join() === "infill,rewrite,score,status", tools);
    check("all only read", tools.every((t) => t.annotations?.readOnlyHint && !t.annotations?.destructiveHint));
}

async function calls() {
    const prefix = "def add(a, b):\n    return ",
        suffix = "\n\nprint(add(1, 2))\n";
    isGood("infill", await call("infill", { prefix, suffix, language: "python", max_tokens: 16 }));
    isGood("infill of a file", await call("infill", { path: "a.py", line: 2, column: 12, max_tokens: 16 }));
    const text = "def schön(x):\n    return x\n";
    const rewritten = await call("rewrite", { text, start: 15, instruction: "double it" });
    isGood("rewrite", rewritten);
    check("its edits give its text", apply(rewritten.structuredContent.edits, text) === rewritten.structuredContent.text,
        rewritten.structuredContent);
    check("what is outside stays", rewritten.structuredContent.text.startsWith("def schön(x):\n"), rewritten);
    isGood("rewrite of a file", await call("rewrite", { path: path.join(root, "a.py"), first_line: 1, last_line: 2 }));
    const scored = await call("score", { text: "x = 1\ny = x\n" });
    isGood("score", scored);
    check("score has tokens", scored.structuredContent.tokens.length > 0, scored);
    isGood("score of a file", await call("score", { path: "a.py", first_line: 1 }));
    isGood("status", await call("status", {}));
}

async function wrongCalls() {
    isBad("infill of nothing", await call("infill", {}), "prefix is missing");
    isBad("a path outside", await call("infill", { path: "../b.py", line: 1, column: 1 }), "not below");
    isBad("a secret", await call("score", { path: ".env" }), "excluded");
    isBad("half a character", await call("rewrite", { text: "ä", start: 1 }), "inside a character");
    let code = 0;
    try {
        await call("write", {});
    } catch (e) {
        code = e.code;
    }
    check("an unknown tool is an error of the protocol", code === -32602, code);
}

// A notice must not come behind its call's result. The clients take the two in the wrong order where they come in one read, and
// complain of a token that they have forgotten already: what came first is looked at here, and that complaint is not the server's.
let tardy = 0;
function watchOrder() {
    const over = new Set(), inner = transport.onmessage;
    transport.onmessage = (message, extra) => {
        if (message.method === "notifications/progress") tardy += over.has(message.params.progressToken);
        else if (message.id !== undefined && !message.method) over.add(message.id);
        inner(message, extra);
    };
}
const isTheirs = (complaint) => complaint.includes("progress notification for an unknown token");

// The last notice may come in one read with the result, and SDK 1 drops it then.
async function progress() {
    const seen = [];
    const result = await call("infill", { prefix: "def f(", suffix: "\n", quality: 1, max_tokens: 64 },
        { onprogress: (p) => seen.push(p.progress) });
    isGood("infill with progress", result);
    check("progress grows", seen.every((p, i) => i === 0 || p > seen[i - 1]), seen);
    return seen.length;
}

async function cancel() {
    const abort = new AbortController();
    const late = call("infill", { prefix: "def f(", suffix: "\n", quality: 1, max_tokens: 4096 },
        { signal: abort.signal }).then(() => "answered", () => "cancelled");
    await sleep(2);
    abort.abort("enough");
    check("a cancelled call ends at once", (await late) === "cancelled");
    isGood("a call after it", await call("status", {}));
    const many = await Promise.all([1, 2, 3].map((n) => call("infill", { prefix: `x = ${n}`, suffix: "\n", max_tokens: 8 })));
    many.forEach((r) => isGood("one of three at once", r));
}

await client.connect(transport);
watchOrder();
check("the server names itself", client.getServerVersion()?.name === "redraft", client.getServerVersion());
if (kind !== "sdk") {
    const version = client.getNegotiatedProtocolVersion();
    check("the era is the one asked for", version === (kind === "modern" ? "2026-07-28" : "2025-11-25"), version);
}
if (kind !== "modern") await client.ping();
await lists();
await calls();
await wrongCalls();
const notices = await progress();
await cancel();
await sleep(200);
const pid = transport.pid;
await client.close();
await sleep(1000);
let alive = true;
try {
    process.kill(pid, 0);
} catch {
    alive = false;
}
check("the server leaves with its client", !alive);
const surprises = complaints.filter((c) => !isTheirs(c));
check("no notice came behind its result", tardy === 0, tardy);
check("nothing surprised the client", surprises.length === 0, surprises);
console.log(`${kind}: ${passed} passed, ${failed} failed, ${notices} notices of progress`);
process.exit(failed ? 1 : 0);
