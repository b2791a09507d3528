// editor.js - an editor as far as a server can tell: documents that are kept in step, requests, and what the server says in
// between, all through the protocol library that VS Code's own client uses.
"use strict";
const assert = require("node:assert/strict");
const { pathToFileURL } = require("node:url");
const lsp = require("vscode-languageserver-protocol/node");
const { Server, file, project } = require("./server");

const units = {
    "utf-8": (s) => Buffer.byteLength(s),
    "utf-16": (s) => s.length,
    "utf-32": (s) => [...s].length,
};

const capabilities = {
    general: { positionEncodings: ["utf-16"] },
    window: { workDoneProgress: true },
    workspace: {
        applyEdit: true,
        configuration: true,
        workspaceFolders: true,
        workspaceEdit: { documentChanges: true, changeAnnotationSupport: { groupsOnLabel: true } },
        didChangeConfiguration: { dynamicRegistration: true },
        executeCommand: { dynamicRegistration: true },
    },
    textDocument: {
        synchronization: { didSave: true },
        inlineCompletion: { dynamicRegistration: true },
        publishDiagnostics: { versionSupport: true },
        codeAction: {
            dataSupport: true,
            disabledSupport: true,
            resolveSupport: { properties: ["edit"] },
            codeActionLiteralSupport: {
                codeActionKind: { valueSet: ["", "quickfix", "refactor", "refactor.rewrite"] },
            },
        },
    },
};

class Document {
    constructor(editor, uri, text, version) {
        Object.assign(this, { editor, uri, text, version });
    }

    position(offset) {
        const before = this.text.slice(0, offset).split("\n");
        return { line: before.length - 1, character: units[this.editor.encoding](before.at(-1)) };
    }

    offset({ line, character }) {
        const lines = this.text.split("\n");
        let at = lines.slice(0, line).reduce((n, l) => n + l.length + 1, 0),
            used = 0;
        for (const c of lines[line]) {
            if (used >= character) break;
            used += units[this.editor.encoding](c);
            at += c.length;
        }
        return at;
    }

    range(start, end) {
        return { start: this.position(start), end: this.position(end) };
    }

    end() {
        return this.text.length;
    }

    after(what) {
        const at = this.text.indexOf(what);
        assert.ok(at >= 0, `${what} is not in the text`);
        return at + what.length;
    }

    edited(start, end, text) {
        return this.text.slice(0, start) + text + this.text.slice(end);
    }

    // `jump`: versions need not be consecutive.
    edit(start, end, text, jump = 1) {
        const range = this.range(start, end);
        this.text = this.edited(start, end, text);
        this.version += jump;
        return this.editor.notify("textDocument/didChange", {
            textDocument: { uri: this.uri, version: this.version },
            contentChanges: [{ range, text }],
        });
    }

    type(offset, text) {
        return this.edit(offset, offset, text);
    }

    // Several changes in one notification, each a function of the result of the one before to [start, end, text].
    edits(...changes) {
        const contentChanges = changes.map((change) => {
            const [start, end, text] = change();
            const range = this.range(start, end);
            this.text = this.edited(start, end, text);
            return { range, text };
        });
        this.version++;
        return this.editor.notify("textDocument/didChange", {
            textDocument: { uri: this.uri, version: this.version },
            contentChanges,
        });
    }

    params(offset, triggerKind, context = {}) {
        return {
            textDocument: { uri: this.uri },
            position: this.position(offset),
            context: { triggerKind, ...context },
        };
    }

    automatic(offset, context, token) {
        return this.editor.request(
            lsp.InlineCompletionRequest.method,
            this.params(offset, 2, context),
            token,
        );
    }

    invoked(offset, context, token) {
        return this.editor.request(
            lsp.InlineCompletionRequest.method,
            this.params(offset, 1, context),
            token,
        );
    }

    // The text with an item taken, and whether the protocol's rules for its range are kept.
    accepted(item, offset) {
        const { start, end } = item.range,
            cursor = this.position(offset);
        assert.equal(typeof item.insertText, "string");
        assert.ok(!item.insertText.includes("\r"), "line ends are \\n");
        assert.equal(start.line, cursor.line, "a range begins on the cursor's line");
        assert.equal(end.line, cursor.line, "a range ends on the cursor's line");
        assert.ok(
            start.character <= cursor.character && cursor.character <= end.character,
            "the cursor is in the range",
        );
        const from = this.offset(start),
            to = this.offset(end);
        assert.ok(
            item.insertText.startsWith(this.text.slice(from, offset)),
            "it begins with what stands before the cursor",
        );
        return this.edited(from, to, item.insertText);
    }

    actions(range, triggerKind = 1, only) {
        const context = { diagnostics: [], triggerKind, ...(only ? { only } : {}) };
        return this.editor.request("textDocument/codeAction", {
            textDocument: { uri: this.uri },
            range,
            context,
        });
    }

    // The text with the edits of a WorkspaceEdit.
    changed(edit) {
        const edits = edit.documentChanges
            ? edit.documentChanges.flatMap((d) => {
                  assert.equal(d.textDocument.uri, this.uri);
                  assert.equal(
                      d.textDocument.version,
                      this.version,
                      "an edit is for the version seen",
                  );
                  return d.edits;
              })
            : edit.changes[this.uri];
        const spans = edits.map((e) => [
            this.offset(e.range.start),
            this.offset(e.range.end),
            e.newText,
        ]);
        spans.sort((a, b) => b[0] - a[0]);
        for (let i = 1; i < spans.length; i++)
            assert.ok(spans[i][1] <= spans[i - 1][0], "edits do not overlap");
        return spans.reduce(
            (text, [from, to, add]) => text.slice(0, from) + add + text.slice(to),
            this.text,
        );
    }

    close() {
        return this.editor.notify("textDocument/didClose", { textDocument: { uri: this.uri } });
    }
}

class Editor {
    // o: capabilities (changes to those above), options (initializationOptions), settings (what the pull answers with)
    static async open(o = {}) {
        const e = new Editor();
        e.settings = o.settings ?? {};
        e.server = new Server(o.more);
        e.conn = lsp.createProtocolConnection(
            new lsp.StreamMessageReader(e.server.process.stdout),
            new lsp.StreamMessageWriter(e.server.process.stdin),
        );
        e.conn.onError(([error]) => e.server.faults.push(error));
        e.listen();
        e.conn.listen();
        const { capabilities: offered } = await e.conn.sendRequest(lsp.InitializeRequest.type, {
            processId: process.pid,
            clientInfo: { name: "redraft's tests" },
            rootUri: pathToFileURL(project).href,
            workspaceFolders: [{ uri: pathToFileURL(project).href, name: "project" }],
            capabilities: { ...capabilities, ...o.capabilities },
            ...(o.options ? { initializationOptions: o.options } : {}),
        });
        e.offered = offered;
        e.encoding = offered.positionEncoding ?? "utf-16";
        await e.conn.sendNotification(lsp.InitializedNotification.type, {});
        await e.pull(0);
        return e;
    }

    constructor() {
        Object.assign(this, { pulled: [], applied: [], applies: true });
    }

    listen() {
        this.conn.onNotification(() => {});
        this.conn.onRequest("workspace/configuration", ({ items }) => {
            this.pulled.push(items);
            return items.map((i) => (i.section === "redraft" ? this.settings : null));
        });
        this.conn.onRequest("window/workDoneProgress/create", () => null);
        this.conn.onRequest("client/registerCapability", () => null);
        this.conn.onRequest("workspace/applyEdit", (params) => {
            this.applied.push(params);
            return { applied: this.applies };
        });
    }

    // Params of the notifications of that name, in order.
    heard(method) {
        return this.server.received.filter((m) => m.method === method).map((m) => m.params);
    }

    request(method, params, token) {
        return token
            ? this.conn.sendRequest(method, params, token)
            : this.conn.sendRequest(method, params);
    }

    notify(method, params) {
        return this.conn.sendNotification(method, params);
    }

    run(command, ...args) {
        return this.request("workspace/executeCommand", { command, arguments: args });
    }

    async document(
        text,
        { language = "python", ending = ".py", version = 1, uri = file(text, ending) } = {},
    ) {
        await this.notify("textDocument/didOpen", {
            textDocument: { uri, languageId: language, version, text },
        });
        return new Document(this, uri, text, version);
    }

    // The settings that are pulled after `before` earlier pulls have arrived.
    async pull(before) {
        await this.until(() => this.pulled.length > before, "workspace/configuration");
        await this.request("redraft/nothing", {}).catch(() => {});
    }

    async configure(settings) {
        const before = this.pulled.length;
        this.settings = settings;
        await this.notify("workspace/didChangeConfiguration", { settings: null });
        await this.pull(before);
    }

    async until(condition, what, ms = 10000) {
        const end = Date.now() + ms;
        while (!condition()) {
            assert.ok(Date.now() < end, `waited ${ms} ms for ${what}`);
            await new Promise((done) => setTimeout(done, 10));
        }
    }

    // Every progress that begins was created and ends once, and nothing comes after its end.
    checkProgress() {
        const state = new Map();
        for (const m of this.server.received) {
            if (m.method === "window/workDoneProgress/create") state.set(m.params.token, "created");
            if (m.method !== "$/progress") continue;
            const { token, value } = m.params,
                was = state.get(token);
            if (value.kind === "begin") assert.equal(was, "created", `begin of ${token}`);
            else assert.equal(was, "begun", `${value.kind} of ${token}`);
            state.set(token, value.kind === "end" ? "ended" : "begun");
        }
        for (const [token, s] of state) assert.notEqual(s, "begun", `${token} did not end`);
    }

    async close() {
        assert.equal(await this.conn.sendRequest(lsp.ShutdownRequest.type), null);
        await this.conn.sendNotification(lsp.ExitNotification.type);
        assert.equal(await this.server.end(), 0);
        this.checkProgress();
    }

    async dispose() {
        this.conn.dispose();
        this.server.kill();
        await this.server.ended;
    }
}

async function withEditor(o, body) {
    const e = await Editor.open(o);
    try {
        await body(e);
        await e.close();
    } catch (error) {
        if (e.server.stderr)
            console.error(`# the server's stderr:\n${e.server.stderr.slice(-2000)}`);
        throw error;
    } finally {
        await e.dispose();
    }
}

module.exports = { Editor, withEditor, capabilities, lsp };
