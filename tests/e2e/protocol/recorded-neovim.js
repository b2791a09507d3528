// recorded-neovim.js - what Neovim 0.12 and newer do with inline completion, repeated as it was recorded from it.
//
// One request a pause of 200 ms while inserting; older ones are not cancelled, so that several are in flight; null keeps
// the ghost text, an empty list clears it, an error goes to the log, which must stay empty. Answers that come outside of
// insert mode are dropped. An accept is an edit, its didChange, and then the item's command.
"use strict";
const assert = require("node:assert/strict");
const { test } = require("node:test");
const { withEditor, capabilities, lsp } = require("./editor");
const { scripted, sleep } = require("./server");

const neovim = {
    capabilities: {
        ...capabilities,
        general: { positionEncodings: ["utf-8", "utf-16", "utf-32"] },
        textDocument: {
            ...capabilities.textDocument,
            inlineCompletion: { dynamicRegistration: false },
        },
    },
    settings: { minConfidence: 0, maxMs: 60000 },
};

class Neovim {
    constructor(document, cursor) {
        Object.assign(this, {
            document,
            cursor,
            inserting: true,
            ghost: null,
            log: [],
            flying: new Set(),
            timer: null,
            changed: 0,
            answers: [],
        });
    }

    async type(text) {
        this.changed = performance.now();
        await this.document.type(this.cursor, text);
        this.cursor += text.length;
        this.wait();
    }

    wait() {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.ask(), 200);
    }

    ask() {
        if (!this.inserting) return;
        const flight = {
            source: new lsp.CancellationTokenSource(),
            cursor: this.cursor,
            text: this.document.text,
        };
        this.flying.add(flight);
        flight.done = this.document
            .automatic(this.cursor, {}, flight.source.token)
            .then(
                (r) => this.take(flight, r),
                (e) => this.fail(flight, e),
            )
            .finally(() => this.flying.delete(flight));
    }

    // An answer to an older text that is drawn over the newer one is what the server has to prevent; one that crosses the
    // change on its way nobody can.
    take(flight, result) {
        this.answers.push(result);
        if (!this.inserting || flight.cancelled || result === null) return;
        if (flight.text !== this.document.text && performance.now() - this.changed < 20) return;
        if (result.items.length > 0)
            assert.equal(flight.text, this.document.text, "a suggestion for an older text");
        this.ghost = result.items[0] ?? null;
    }

    fail(flight, error) {
        if (!flight.cancelled) this.log.push(`${error.code} ${error.message}`);
    }

    async settle() {
        await sleep(250);
        await Promise.all([...this.flying].map((f) => f.done));
    }

    async accept() {
        const item = this.ghost;
        this.ghost = null;
        const from = this.document.offset(item.range.start),
            to = this.document.offset(item.range.end);
        this.document.accepted(item, this.cursor);
        await this.document.edit(from, to, item.insertText);
        this.cursor = from + item.insertText.length;
        if (item.command)
            await this.document.editor.run(item.command.command, ...(item.command.arguments ?? []));
        this.wait();
    }

    leave() {
        this.inserting = false;
        this.ghost = null;
        clearTimeout(this.timer);
        for (const f of this.flying) {
            f.cancelled = true;
            f.source.cancel();
        }
    }
}

function holds(name, body, skip) {
    test(name, { timeout: 60000, skip }, () => withEditor(neovim, body));
}
const scriptHolds = (name, body) => holds(name, body, !scripted && "needs the scripted runner");

async function at(e, text) {
    const cursor = text.indexOf("|");
    return new Neovim(await e.document(text.replace("|", ""), { version: 0 }), cursor);
}

scriptHolds("what was asked for an older text gets null, and the newest its answer", async (e) => {
    const n = await at(e, "# «abc» @steps=10 @us=150000\nx = |\n");
    for (const c of "wxyz") {
        await n.type(c);
        await sleep(260);
    }
    await n.settle();
    assert.deepEqual(n.answers.slice(0, 3), [null, null, null]);
    assert.equal(n.ghost.insertText, "abc");
    assert.deepEqual(n.log, []);
});

scriptHolds(
    "four requests in flight while the cursor moves: the older ones get null",
    async (e) => {
        const n = await at(e, "# «abc» @steps=10 @us=150000\nx = |y   \n");
        for (let i = 0; i < 4; i++) {
            n.cursor++;
            n.ask();
        }
        assert.equal(n.flying.size, 4);
        await n.settle();
        assert.deepEqual(n.answers.slice(0, 3), [null, null, null]);
        assert.equal(n.ghost.insertText, "abc");
        assert.deepEqual(n.log, []);
    },
);

scriptHolds("ghost text stays while it is typed", async (e) => {
    const n = await at(e, "# «alpha(beta)» @steps=2 @us=20000\nx = |\n");
    let rest = "alpha(beta)";
    await n.type(" ");
    await n.settle();
    assert.equal(n.ghost.insertText, rest);
    for (const c of "alph") {
        await n.type(c);
        await n.settle();
        rest = rest.slice(1);
        assert.equal(n.ghost.insertText, rest);
        assert.deepEqual(n.ghost.range, n.document.range(n.cursor, n.cursor));
    }
    assert.deepEqual(n.log, []);
});

scriptHolds("an empty list clears what is shown", async (e) => {
    const n = await at(e, "# «abc»\nx = |\n");
    await n.type(" ");
    await n.settle();
    assert.equal(n.ghost.insertText, "abc");
    await n.document.edit(n.document.after("«"), n.document.after("«abc"), "");
    n.cursor -= 3;
    await n.type("q");
    await n.settle();
    assert.equal(n.ghost, null);
    assert.deepEqual(n.log, []);
});

scriptHolds("an accept is an edit, a command, and the next request", async (e) => {
    const n = await at(e, "# 😀 «a😀b»\nx😀 = |\n");
    await n.type(" ");
    await n.settle();
    await n.accept();
    assert.equal(n.document.text, "# 😀 «a😀b»\nx😀 =  a😀b\n");
    await n.settle();
    assert.ok(n.answers.length >= 2);
    assert.deepEqual(n.log, []);
});

scriptHolds("a failing model leaves the log empty", async (e) => {
    const n = await at(e, "# «abc» @fail\nx = |\n");
    await n.type(" ");
    await n.settle();
    assert.equal(n.ghost, null);
    assert.deepEqual(n.log, []);
});

holds("leaving insert mode cancels what is in flight", async (e) => {
    const n = await at(e, "# «abc» @steps=20 @us=100000\nx = |\n");
    for (const c of "wx") {
        await n.type(c);
        await sleep(260);
    }
    const flights = [...n.flying].map((f) => f.done);
    n.leave();
    await Promise.all(flights);
    assert.equal(n.ghost, null);
    assert.deepEqual(n.log, []);
});

holds("a function typed with pauses leaves the log empty and the text as typed", async (e) => {
    const typed = "def mean(values):\n    total = sum(values)\n    return total";
    const n = await at(
        e,
        "import math\n\n\n|\n\n\ndef median(values):\n    return sorted(values)[len(values) // 2]\n",
    );
    for (const word of typed.split(/(?<= )/)) {
        await n.type(word);
        await sleep(word.length % 3 === 0 ? 260 : 80);
    }
    await n.settle();
    assert.ok(n.document.text.includes(typed));
    assert.ok(n.answers.length > 0);
    assert.deepEqual(n.log, []);
});
