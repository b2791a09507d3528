// server.js - a server under test as a process: its frames read strictly, its requests counted, its end waited for.
//
// Each server gets a home of its own, so that neither the user's settings nor a running daemon has a part in the tests.
"use strict";
const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { pathToFileURL } = require("node:url");

const command = process.argv.slice(2);
// Answers that can be foretold come from the program whose runner is a script (tests/fake/script.h).
const scripted = /scripted/.test(path.basename(command[0] ?? ""));
const patience = 20000;

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "redraft-protocol-"));
const home = path.join(folder, "home");
const project = fs.realpathSync(folder) + "/project";
for (const f of [home, project, path.join(home, "run")]) fs.mkdirSync(f, { mode: 0o700 });
// A daemon that a killed test leaves behind ends by itself soon.
fs.mkdirSync(path.join(home, ".config/redraft"), { recursive: true });
fs.writeFileSync(
    path.join(home, ".config/redraft/config.json"),
    JSON.stringify({ idleExitSeconds: 5 }),
);
process.on("exit", () => fs.rmSync(folder, { recursive: true, force: true }));

function environment() {
    const env = { ...process.env, HOME: home, XDG_RUNTIME_DIR: path.join(home, "run") };
    for (const name of ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"])
        delete env[name];
    for (const name of Object.keys(env)) if (name.startsWith("REDRAFT_")) delete env[name];
    return env;
}

let files = 0;
// A file of the project: its URI.
function file(text, ending = ".py") {
    const name = path.join(project, `f${++files}${ending}`);
    fs.mkdirSync(path.dirname(name), { recursive: true });
    fs.writeFileSync(name, text);
    return pathToFileURL(name).href;
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function within(ms, promise, what) {
    let timer;
    const late = new Promise((_, fail) => {
        timer = setTimeout(() => fail(new Error(`waited ${ms} ms for ${what}`)), ms);
    });
    try {
        return await Promise.race([promise, late]);
    } finally {
        clearTimeout(timer);
    }
}

function frame(message, headers = "") {
    const body = Buffer.from(typeof message === "string" ? message : JSON.stringify(message));
    return Buffer.concat([Buffer.from(`${headers}Content-Length: ${body.length}\r\n\r\n`), body]);
}

// Everything that the server writes must be a frame, and every frame a message.
class Frames {
    constructor(take) {
        this.take = take;
        this.rest = Buffer.alloc(0);
    }

    feed(bytes) {
        this.rest = Buffer.concat([this.rest, bytes]);
        for (;;) {
            const end = this.rest.indexOf("\r\n\r\n");
            if (end < 0) {
                assert.match(
                    this.rest.toString("latin1"),
                    /^(C|$)/,
                    "stdout holds something that is no frame",
                );
                return;
            }
            const header = this.rest.subarray(0, end).toString("latin1");
            const length = /^Content-Length: (\d+)$/.exec(header);
            assert.ok(length, `stdout holds the header ${JSON.stringify(header)}`);
            const whole = end + 4 + Number(length[1]);
            if (this.rest.length < whole) return;
            const body = new TextDecoder("utf-8", { fatal: true }).decode(
                this.rest.subarray(end + 4, whole),
            );
            this.rest = this.rest.subarray(whole);
            this.take(JSON.parse(body));
        }
    }
}

class Server {
    constructor(more = []) {
        this.process = spawn(command[0], [...command.slice(1), ...more], {
            env: environment(),
            cwd: project,
        });
        this.received = [];
        this.stderr = "";
        this.faults = [];
        this.waiting = new Set();
        const frames = new Frames((m) => this.take(m));
        this.process.stdout.on("data", (b) => {
            try {
                frames.feed(b);
            } catch (e) {
                this.faults.push(e);
            }
        });
        this.process.stderr.on("data", (b) => (this.stderr += b));
        this.process.stdin.on("error", () => {});
        this.ended = new Promise((done) =>
            this.process.on("close", (code, signal) => done({ code, signal })),
        );
        this.process.on("error", (e) => this.faults.push(e));
    }

    take(m) {
        try {
            assert.equal(m.jsonrpc, "2.0");
            if (m.method === undefined) {
                assert.ok("id" in m, "an answer without id");
                assert.notEqual(
                    "result" in m,
                    "error" in m,
                    `an answer has a result or an error: ${JSON.stringify(m)}`,
                );
                if (m.id !== null)
                    assert.ok(
                        !this.received.some((o) => o.method === undefined && o.id === m.id),
                        `a second answer to ${JSON.stringify(m.id)}`,
                    );
            }
        } catch (e) {
            this.faults.push(e);
        }
        this.received.push(m);
        for (const w of this.waiting) w();
    }

    write(bytes) {
        this.process.stdin.write(bytes);
    }

    send(message) {
        this.write(frame({ jsonrpc: "2.0", ...message }));
    }

    // The first message, already there or to come, that is wanted.
    async message(wanted, what, ms = patience) {
        const find = () => this.received.find(wanted);
        let look;
        const found = new Promise((done) => {
            look = () => find() && done(find());
        });
        this.waiting.add(look);
        look();
        try {
            return await within(
                ms,
                found,
                `${what}; there came ${JSON.stringify(this.received.slice(-5))}`,
            );
        } finally {
            this.waiting.delete(look);
        }
    }

    answer(id, ms) {
        return this.message(
            (m) => m.method === undefined && m.id === id,
            `the answer to ${JSON.stringify(id)}`,
            ms,
        );
    }

    async request(id, method, params) {
        this.send(params === undefined ? { id, method } : { id, method, params });
        return this.answer(id);
    }

    async initialize(params = {}) {
        const answer = await this.request("init", "initialize", {
            processId: null,
            rootUri: null,
            capabilities: {},
            ...params,
        });
        assert.ok(answer.result, JSON.stringify(answer));
        this.send({ method: "initialized", params: {} });
        return answer.result;
    }

    // The exit status, once the process has ended and nothing was wrong with what it wrote.
    async end(ms = patience) {
        const { code, signal } = await within(ms, this.ended, "the server's end");
        assert.equal(signal, null, `the server died of ${signal}\n${this.stderr}`);
        this.verify();
        return code;
    }

    async stop() {
        this.send({ id: "stop", method: "shutdown" });
        assert.deepEqual((await this.answer("stop")).result, null);
        this.send({ method: "exit" });
        assert.equal(await this.end(), 0);
    }

    verify() {
        assert.deepEqual(this.faults, []);
    }

    kill() {
        if (this.process.exitCode === null && this.process.signalCode === null)
            this.process.kill("SIGKILL");
    }
}

// Runs `body` with a server that does not outlive it.
async function withServer(body, more) {
    const server = new Server(more);
    try {
        await body(server);
        server.verify();
    } finally {
        server.kill();
        await server.ended;
    }
}

// A front starts a daemon that outlives it; it belongs to the home made above.
process.on("beforeExit", () => {
    if (command.includes("--alone") || stopped) return;
    stopped = true;
    spawn(command[0], ["stop"], { env: environment(), stdio: "ignore" });
});
let stopped = false;

module.exports = {
    Server,
    withServer,
    environment,
    file,
    folder,
    frame,
    project,
    scripted,
    sleep,
    within,
    command,
};
