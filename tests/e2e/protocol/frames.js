// frames.js - the server against bytes written by hand: framing, lifecycle, ids, exit codes, and what no library would send.
"use strict";
const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const { test } = require("node:test");
const { file, frame, withServer, sleep } = require("./server");

const failed = (answer, code) => assert.equal(answer.error?.code, code, JSON.stringify(answer));
const inline = (uri, line, character) => ({
    textDocument: { uri },
    position: { line, character },
    context: { triggerKind: 2 },
});
const opened = (uri, text, version = 1) => ({
    method: "textDocument/didOpen",
    params: { textDocument: { uri, languageId: "python", version, text } },
});

test("exit after shutdown leaves with 0", () =>
    withServer(async (s) => {
        await s.initialize();
        await s.stop();
    }));

test("exit without shutdown leaves with 1", () =>
    withServer(async (s) => {
        await s.initialize();
        s.send({ method: "exit" });
        assert.equal(await s.end(), 1);
    }));

test("exit before initialize leaves with 1", () =>
    withServer(async (s) => {
        s.send({ method: "exit" });
        assert.equal(await s.end(), 1);
    }));

test("a closed stdin leaves with 1", () =>
    withServer(async (s) => {
        await s.initialize();
        s.process.stdin.end();
        assert.equal(await s.end(), 1);
    }));

test("a closed stdin after shutdown leaves with 0", () =>
    withServer(async (s) => {
        await s.initialize();
        await s.request(1, "shutdown");
        s.process.stdin.end();
        assert.equal(await s.end(), 0);
    }));

test("a stdin that was never written to leaves with 1", () =>
    withServer(async (s) => {
        s.process.stdin.end();
        assert.equal(await s.end(), 1);
    }));

test("a closed stdin in the middle of a frame leaves with 1", () =>
    withServer(async (s) => {
        await s.initialize();
        s.write('Content-Length: 100\r\n\r\n{"jsonrpc"');
        s.process.stdin.end();
        assert.equal(await s.end(), 1);
    }));

test("a reader that has gone ends the server", () =>
    withServer(async (s) => {
        await s.initialize();
        s.process.stdout.destroy();
        for (let i = 0; i < 20 && s.process.exitCode === null; i++) {
            s.send({ id: i, method: "no/such" });
            await sleep(50);
        }
        s.process.stdin.end();
        await s.end();
        assert.ok(
            s.stderr.split("\n").length < 20,
            `it went on logging: ${s.stderr.slice(0, 400)}`,
        );
    }));

test("requests before initialize get -32002 and notifications nothing", () =>
    withServer(async (s) => {
        const uri = file("a\n");
        s.send(opened(uri, "a\n"));
        failed(await s.request(1, "textDocument/inlineCompletion", inline(uri, 0, 0)), -32002);
        failed(await s.request(2, "shutdown"), -32002);
        await s.initialize();
        await s.stop();
    }));

test("a second initialize gets -32600", () =>
    withServer(async (s) => {
        await s.initialize();
        failed(
            await s.request(2, "initialize", { processId: null, rootUri: null, capabilities: {} }),
            -32600,
        );
        await s.stop();
    }));

test("requests after shutdown get -32600", () =>
    withServer(async (s) => {
        await s.initialize();
        await s.request(1, "shutdown");
        failed(await s.request(2, "shutdown"), -32600);
        failed(
            await s.request(3, "textDocument/inlineCompletion", inline(file("a"), 0, 0)),
            -32600,
        );
        s.send({ method: "exit" });
        assert.equal(await s.end(), 0);
    }));

test("unknown requests get -32601, also those that begin with $/, and unknown notifications nothing", () =>
    withServer(async (s) => {
        await s.initialize();
        failed(await s.request(1, "no/such", {}), -32601);
        failed(await s.request(2, "$/no/such", {}), -32601);
        s.send({ method: "no/such", params: {} });
        s.send({ method: "$/no/such" });
        s.send({ method: "textDocument/didFocus", params: {} });
        await s.stop();
    }));

test("broken JSON gets -32700 with a null id and the session goes on", () =>
    withServer(async (s) => {
        await s.initialize();
        s.write(frame('{"jsonrpc":"2.0","id":1,'));
        failed(await s.answer(null), -32700);
        await s.stop();
    }));

for (const [what, body] of [
    ["a number", "5"],
    ["an array", "[]"],
    ["a batch", '[{"jsonrpc":"2.0","id":1,"method":"shutdown"}]'],
    ["an object without jsonrpc", '{"id":7,"method":"shutdown"}'],
    ["a version that is not 2.0", '{"jsonrpc":"1.0","id":7,"method":"shutdown"}'],
    ["a method that is no string", '{"jsonrpc":"2.0","id":7,"method":5}'],
]) {
    test(`${what} gets -32600 and the session goes on`, () =>
        withServer(async (s) => {
            await s.initialize();
            s.write(frame(body));
            failed(await s.message((m) => m.error !== undefined, "an error"), -32600);
            await s.stop();
        }));
}

test("a message with neither method nor known id is dropped", () =>
    withServer(async (s) => {
        await s.initialize();
        const before = s.received.length;
        s.write(frame('{"jsonrpc":"2.0"}'));
        s.write(frame('{"jsonrpc":"2.0","id":4711,"result":null}'));
        s.write(frame('{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"?"}}'));
        await s.request(9, "no/such");
        assert.deepEqual(
            s.received
                .slice(before)
                .filter((m) => m.method === undefined)
                .map((m) => m.id),
            [9],
        );
        await s.stop();
    }));

test("ids come back as they were spelled", () =>
    withServer(async (s) => {
        await s.initialize();
        for (const id of ["a", "1", "", "é😀", 0, -1, 1, 2 ** 31, Number.MAX_SAFE_INTEGER])
            failed(await s.request(id, "no/such"), -32601);
        s.write(frame('{"jsonrpc":"2.0","id":5.0,"method":"no/such"}'));
        failed(await s.answer(5), -32601);
        await s.stop();
    }));

test("params may be absent, null, {} and []", () =>
    withServer(async (s) => {
        s.send({
            id: 1,
            method: "initialize",
            params: { processId: null, rootUri: null, capabilities: {} },
        });
        await s.answer(1);
        s.send({ method: "initialized", params: [] });
        s.send({ method: "workspace/didChangeConfiguration", params: { settings: null } });
        s.send({ method: "workspace/didChangeConfiguration", params: [] });
        s.send({ method: "workspace/didChangeConfiguration" });
        failed(await s.request(2, "textDocument/inlineCompletion", []), -32602);
        failed(await s.request(3, "textDocument/inlineCompletion", null), -32602);
        failed(await s.request(4, "textDocument/inlineCompletion"), -32602);
        failed(await s.request(5, "textDocument/codeAction", {}), -32602);
        assert.equal((await s.request(6, "shutdown", [])).result, null);
        s.send({ method: "exit", params: [] });
        assert.equal(await s.end(), 0);
    }));

test("initialize needs none of its optional fields", () =>
    withServer(async (s) => {
        const answer = await s.request(1, "initialize", { capabilities: {} });
        assert.equal(answer.result.capabilities.positionEncoding, "utf-16");
        await s.stop();
    }));

test("wrong params get -32602 with the field named", () =>
    withServer(async (s) => {
        const uri = file("a = \n");
        await s.initialize();
        s.send(opened(uri, "a = \n"));
        const without = await s.request(1, "textDocument/inlineCompletion", {
            textDocument: { uri },
            context: { triggerKind: 2 },
        });
        failed(without, -32602);
        assert.match(without.error.message, /position/);
        const wrong = await s.request(2, "textDocument/inlineCompletion", {
            ...inline(uri, 0, 0),
            position: { line: "0", character: -1 },
        });
        failed(wrong, -32602);
        assert.match(wrong.error.message, /position|line|character/);
        await s.stop();
    }));

test("frames may come byte by byte", () =>
    withServer(async (s) => {
        await s.initialize();
        for (const byte of frame({ jsonrpc: "2.0", id: 1, method: "no/such" })) {
            s.write(Buffer.from([byte]));
            await new Promise(setImmediate);
        }
        failed(await s.answer(1), -32601);
        await s.stop();
    }));

test("three frames may come in one write", () =>
    withServer(async (s) => {
        await s.initialize();
        s.write(
            Buffer.concat([1, 2, 3].map((id) => frame({ jsonrpc: "2.0", id, method: "no/such" }))),
        );
        for (const id of [1, 2, 3]) failed(await s.answer(id), -32601);
        await s.stop();
    }));

test("other headers are skipped and names compare without case", () =>
    withServer(async (s) => {
        await s.initialize();
        s.write(
            frame(
                { jsonrpc: "2.0", id: 1, method: "no/such" },
                "Content-Type: application/vscode-jsonrpc; charset=utf-8\r\n",
            ),
        );
        failed(await s.answer(1), -32601);
        const body = '{"jsonrpc":"2.0","id":2,"method":"no/such"}';
        s.write(`X-Other: 1\r\ncontent-LENGTH:${body.length}\r\n\r\n${body}`);
        failed(await s.answer(2), -32601);
        await s.stop();
    }));

for (const [what, header] of [
    ["2^31", "Content-Length: 2147483648"],
    ["2^32", "Content-Length: 4294967296"],
    ["2^63", "Content-Length: 9223372036854775808"],
    ["16 MiB and one", "Content-Length: 16777217"],
    ["less than nothing", "Content-Length: -1"],
    ["no number", "Content-Length: ten"],
]) {
    test(`a length of ${what} ends the server with 1 and a line on stderr`, () =>
        withServer(async (s) => {
            await s.initialize();
            s.write(`${header}\r\n\r\n`);
            assert.equal(await s.end(), 1);
            assert.notEqual(s.stderr, "");
        }));
}

test("headers without a length end the server with 1", () =>
    withServer(async (s) => {
        await s.initialize();
        s.write("Content-Type: text\r\n\r\n{}");
        assert.equal(await s.end(), 1);
    }));

test("a header block without end ends the server with 1", () =>
    withServer(async (s) => {
        await s.initialize();
        s.write(`X-Long: ${"x".repeat(100000)}`);
        assert.equal(await s.end(), 1);
    }));

test("half surrogate pairs, NUL and bytes that are not UTF-8 are taken as text", () =>
    withServer(async (s) => {
        const uri = file("a\n");
        await s.initialize();
        const before = (text) =>
            `{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{"textDocument":{"uri":${JSON.stringify(uri)},` +
            `"languageId":"python","version":1,"text":"${text}"}}}`;
        s.write(frame(before("\\ud83d b\\ude00 \\u0000 = ")));
        const raw = Buffer.from(before("x"));
        const at = raw.lastIndexOf("x");
        raw[at] = 0xff;
        s.write(Buffer.concat([Buffer.from(`Content-Length: ${raw.length}\r\n\r\n`), raw]));
        const answer = await s.request(1, "textDocument/inlineCompletion", inline(uri, 0, 1));
        assert.ok("result" in answer, JSON.stringify(answer));
        assert.ok(!s.received.some((m) => m.error?.code === -32700));
        await s.stop();
    }));

test("positions out of bounds, changes of closed files and odd versions do no harm", () =>
    withServer(async (s) => {
        const uri = file("a = 1\n");
        const change = (version, at, text) =>
            s.send({
                method: "textDocument/didChange",
                params: {
                    textDocument: { uri, version },
                    contentChanges: [{ range: at, text }],
                },
            });
        const range = (a, b, c, d) => ({
            start: { line: a, character: b },
            end: { line: c, character: d },
        });
        await s.initialize();
        change(1, range(0, 0, 0, 1), "x");
        s.send(opened(uri, "a = 1\n", 0));
        change(5, range(0, 5, 0, 4711), "2");
        change(5, range(4711, 0, 4711, 5), "b");
        change(2, range(0, 2147483647, 2147483647, 0), "c");
        change(9, range(1, 0, 0, 0), "z");
        for (const [line, character] of [
            [0, 4711],
            [4711, 0],
            [2147483647, 2147483647],
        ]) {
            const answer = await s.request(
                `${line} ${character}`,
                "textDocument/inlineCompletion",
                inline(uri, line, character),
            );
            assert.ok("result" in answer || answer.error.code === -32602, JSON.stringify(answer));
        }
        s.send({ method: "textDocument/didClose", params: { textDocument: { uri } } });
        s.send({ method: "textDocument/didClose", params: { textDocument: { uri } } });
        const closed = await s.request(
            "closed",
            "textDocument/inlineCompletion",
            inline(uri, 0, 0),
        );
        assert.ok("result" in closed || closed.error.code === -32602, JSON.stringify(closed));
        await s.stop();
    }));

test("an id that is still open is not answered twice", () =>
    withServer(async (s) => {
        const uri = file("a = \n");
        await s.initialize();
        s.send(opened(uri, "a = \n"));
        const asked = frame({
            jsonrpc: "2.0",
            id: 1,
            method: "textDocument/inlineCompletion",
            params: { ...inline(uri, 0, 4), context: { triggerKind: 1 } },
        });
        s.write(Buffer.concat([asked, asked]));
        await s.answer(1);
        await s.stop();
    }));

test("--stdio and --clientProcessId are accepted", () =>
    withServer(
        async (s) => {
            await s.initialize();
            await s.stop();
        },
        ["--stdio", `--clientProcessId=${process.pid}`],
    ));

for (const where of ["processId", "--clientProcessId"]) {
    test(
        `the server leaves when the process that ${where} names has gone`,
        { timeout: 30000 },
        async () => {
            const editor = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60000)"]);
            const byOption = where !== "processId";
            try {
                await withServer(
                    async (s) => {
                        await s.initialize(byOption ? {} : { processId: editor.pid });
                        editor.kill("SIGKILL");
                        assert.equal(await s.end(15000), 1);
                    },
                    byOption ? [`--clientProcessId=${editor.pid}`] : [],
                );
            } finally {
                editor.kill("SIGKILL");
            }
        },
    );
}

test("shutdown cancels what is open", () =>
    withServer(async (s) => {
        const uri = file("a = \n");
        await s.initialize();
        s.send(opened(uri, "a = \n"));
        s.write(
            Buffer.concat([
                frame({
                    jsonrpc: "2.0",
                    id: 1,
                    method: "textDocument/inlineCompletion",
                    params: { ...inline(uri, 0, 4), context: { triggerKind: 1 } },
                }),
                frame({ jsonrpc: "2.0", id: 2, method: "shutdown" }),
            ]),
        );
        failed(await s.answer(1), -32800);
        assert.equal((await s.answer(2)).result, null);
        s.send({ method: "exit" });
        assert.equal(await s.end(), 0);
    }));

test("nothing but the answer is sent before it, and no question before initialized", () =>
    withServer(async (s) => {
        s.send({
            id: 1,
            method: "initialize",
            params: {
                processId: null,
                rootUri: null,
                capabilities: {
                    workspace: {
                        configuration: true,
                        didChangeConfiguration: { dynamicRegistration: true },
                    },
                    window: { workDoneProgress: true },
                },
            },
        });
        await s.answer(1);
        await sleep(300);
        const early = ["window/showMessage", "window/logMessage", "telemetry/event"];
        const answered = s.received.findIndex((m) => m.id === 1);
        assert.ok(
            s.received.slice(0, answered).every((m) => early.includes(m.method)),
            JSON.stringify(s.received),
        );
        assert.ok(!s.received.some((m) => m.method && "id" in m), "it asked before initialized");
        s.send({ method: "initialized", params: {} });
        const asked = await s.message(
            (m) => m.method === "workspace/configuration",
            "workspace/configuration",
        );
        s.send({ id: asked.id, result: [null] });
        await s.stop();
    }));

test("a client that offers nothing is asked nothing", () =>
    withServer(async (s) => {
        const uri = file("a = \n");
        await s.initialize();
        s.send(opened(uri, "a = \n"));
        await s.request(1, "textDocument/inlineCompletion", {
            ...inline(uri, 0, 4),
            context: { triggerKind: 1 },
        });
        assert.deepEqual(
            s.received.filter((m) => m.method && "id" in m),
            [],
        );
        assert.ok(
            !s.received.some((m) => m.method === "$/progress" || m.method === "$/redraft/draft"),
        );
        await s.stop();
    }));
