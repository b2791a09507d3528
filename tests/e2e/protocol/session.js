// session.js - what an editor's session has to be, through the protocol library. Most of it holds for any model; what needs an
// answer that can be foretold runs with the scripted one alone.
"use strict";
const assert = require("node:assert/strict");
const { test } = require("node:test");
const { withEditor, capabilities, lsp } = require("./editor");
const { file, scripted, sleep } = require("./server");

const all = { minConfidence: 0, debounceMs: 0, maxMs: 60000 };
const code = (wanted) => (e) => {
    assert.equal(e.code, wanted, `${e.code} ${e.message}`);
    return true;
};

// With any model.
function holds(name, o, body) {
    test(name, { timeout: 60000 }, () => withEditor({ settings: all, ...o }, body));
}

// With the script: what it will say stands in the text.
function scriptHolds(name, o, body) {
    test(name, { timeout: 60000, skip: !scripted && "needs the scripted runner" }, () =>
        withEditor({ settings: all, ...o }, body),
    );
}

function only(result) {
    assert.equal(result?.items?.length, 1, JSON.stringify(result));
    return result.items[0];
}

// ---- capabilities and positions ----

holds("the capabilities are those of the protocol page", {}, async (e) => {
    assert.equal(e.offered.positionEncoding, "utf-16");
    assert.deepEqual(e.offered.textDocumentSync, {
        openClose: true,
        change: 2,
        save: { includeText: false },
    });
    assert.deepEqual(e.offered.inlineCompletionProvider, {});
    assert.deepEqual([...e.offered.codeActionProvider.codeActionKinds].sort(), [
        "quickfix",
        "refactor.rewrite",
    ]);
    assert.equal(e.offered.codeActionProvider.resolveProvider, true);
    assert.deepEqual(e.offered.workspace.workspaceFolders, {
        supported: true,
        changeNotifications: true,
    });
    assert.equal(e.offered.completionProvider, undefined);
    for (const c of ["rewrite", "fill", "fixDoubtful", "showDoubtful", "explainLast", "accepted"])
        assert.ok(e.offered.executeCommandProvider.commands.includes(`redraft.${c}`), c);
});

const offering = (...positionEncodings) => ({ capabilities: { general: { positionEncodings } } });

holds(
    "utf-16 is chosen wherever it is offered",
    offering("utf-8", "utf-32", "utf-16"),
    async (e) => {
        assert.equal(e.encoding, "utf-16");
    },
);

for (const encoding of ["utf-16", "utf-8", "utf-32"]) {
    scriptHolds(
        `edits after characters outside the BMP arrive where they were made: ${encoding}`,
        offering(encoding),
        async (e) => {
            assert.ok([encoding, "utf-16"].includes(e.encoding), e.encoding);
            const d = await e.document("# é 😀«a😀c»\nx = \n", { version: 0 });

            await d.edit(d.after("«a"), d.after("«a"), "b", 5);
            assert.equal(only(await d.automatic(d.end() - 1)).insertText, "ab😀c");
            await d.edits(
                () => [d.after("ab"), d.after("ab😀"), "zz"],
                () => [d.after("zz"), d.after("zzc"), "\n😀é"],
                () => [0, d.after("# é "), ""],
            );
            assert.equal(d.text, "😀«abzz\n😀é»\nx = \n");
            const item = only(await d.automatic(d.end() - 1));
            assert.equal(item.insertText, "abzz\n😀é");
            assert.deepEqual(item.range, d.range(d.end() - 1, d.end() - 1));
        },
    );
}

// ---- inline completion ----

holds(
    "an automatic answer has at most one item, and an invoked one may have several, all different",
    {},
    async (e) => {
        const d = await e.document(
            "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return \n",
        );
        const at = d.end() - 1;
        const automatic = await d.automatic(at);
        assert.ok(automatic.items.length <= 1);
        const invoked = await d.invoked(at);
        assert.ok(invoked.items.length >= 1 && invoked.items.length <= 5);
        assert.equal(new Set(invoked.items.map((i) => i.insertText)).size, invoked.items.length);
        for (const item of [...automatic.items, ...invoked.items]) {
            assert.notEqual(item.insertText, "");
            const text = d.accepted(item, at);
            assert.ok(text.startsWith(d.text.slice(0, at)), "what stands before the cursor stays");
        }
    },
);

scriptHolds("an insertion has an empty range at the cursor", {}, async (e) => {
    const d = await e.document("# «a + b»\nx = \n");
    const item = only(await d.automatic(d.end() - 1));
    assert.equal(item.insertText, "a + b");
    assert.deepEqual(item.range, d.range(d.end() - 1, d.end() - 1));
});

scriptHolds("an invoked answer has the alternatives, the best first", {}, async (e) => {
    const d = await e.document("# «third» «second» «first»\nx = \n");
    const { items } = await d.invoked(d.end() - 1);
    assert.deepEqual(
        items.map((i) => i.insertText),
        ["first", "second", "third"],
    );
});

scriptHolds("after an invoked answer the automatic one is its best", {}, async (e) => {
    const d = await e.document("# «third» «second» «first»\nx = \n");
    await d.invoked(d.end() - 1);
    assert.equal(only(await d.automatic(d.end() - 1)).insertText, "first");
});

scriptHolds("nothing to suggest is an empty list", {}, async (e) => {
    const d = await e.document("# «»\nx = \n");
    assert.deepEqual((await d.automatic(d.end() - 1)).items, []);
    assert.deepEqual((await d.invoked(d.end() - 1)).items, []);
});

scriptHolds("what is typed along shortens the suggestion and asks no model", {}, async (e) => {
    const d = await e.document("# «alpha(beta)» @steps=4 @us=250000\nx = \n");
    assert.equal(only(await d.automatic(d.end() - 1)).insertText, "alpha(beta)");
    for (const [typed, rest] of [
        ["a", "lpha(beta)"],
        ["lph", "a(beta)"],
        ["a(", "beta)"],
    ]) {
        await d.type(d.end() - 1, typed);
        const began = Date.now();
        const item = only(await d.automatic(d.end() - 1));
        assert.equal(item.insertText, rest);
        assert.deepEqual(item.range, d.range(d.end() - 1, d.end() - 1));
        assert.ok(Date.now() - began < 500, `${Date.now() - began} ms`);
    }
});

scriptHolds(
    "a bracket that the editor closed by itself does not end a suggestion",
    {},
    async (e) => {
        const d = await e.document("# «foo(bar)»\nx = \n");
        const at = () => d.after("x = foo");
        assert.equal(only(await d.automatic(d.end() - 1)).insertText, "foo(bar)");
        await d.type(d.end() - 1, "foo");
        await d.type(at(), "()");
        const item = only(await d.automatic(at() + 1));
        assert.equal(d.accepted(item, at() + 1), "# «foo(bar)»\nx = foo(bar)\n");
    },
);

scriptHolds("something else typed drops the suggestion", {}, async (e) => {
    const d = await e.document("# «alpha»\nx = \n");
    assert.equal(only(await d.automatic(d.end() - 1)).insertText, "alpha");
    await d.edit(d.after("«"), d.after("«alpha"), "beta");
    await d.type(d.end() - 1, "q");
    assert.equal(only(await d.automatic(d.end() - 1)).insertText, "beta");
});

for (const [what, before, after, answer, expected] of [
    ["bracket", "x = f(", ")\n", "a, b)", "x = f(a, b)\n"],
    ["two brackets", "x = f(g(", "))\n", "a))", "x = f(g(a))\n"],
    ["quote", 'x = "', '"\n', 'a"', 'x = "a"\n'],
    [
        "rest of the line",
        "x = a",
        " + base_price\n",
        " * c + base_price",
        "x = a * c + base_price\n",
    ],
    [
        "next line",
        "if x:\n    ",
        "\n    return value\n",
        "y = 1\n    return value\n",
        "if x:\n    y = 1\n    return value\n",
    ],
]) {
    scriptHolds(`what stands after the cursor is not repeated: ${what}`, {}, async (e) => {
        const mark = `# «${answer}»\n`;
        const d = await e.document(mark + before + after);
        const at = mark.length + before.length;
        assert.equal(d.accepted(only(await d.automatic(at)), at), mark + expected);
    });
}

scriptHolds("line ends of a suggestion are \\n in a file with \\r\\n too", {}, async (e) => {
    const d = await e.document("# «a\r\nb»\r\nx = \r\n");
    assert.equal(only(await d.automatic(d.end() - 2)).insertText, "a\nb");
});

scriptHolds("a cancelled request gets -32800 and soon", {}, async (e) => {
    const d = await e.document("# «a» @steps=50 @us=100000\nx = \n");
    const source = new lsp.CancellationTokenSource();
    const asked = d.automatic(d.end() - 1, {}, source.token);
    await sleep(200);
    const began = Date.now();
    source.cancel();
    await assert.rejects(asked, code(-32800));
    assert.ok(Date.now() - began < 1000);
});

scriptHolds(
    "a request that a newer one overtakes gets null, and the newer its answer",
    {},
    async (e) => {
        const d = await e.document("# «abc» @steps=4 @us=100000\nx = \n");
        const first = d.automatic(d.end() - 1);
        await sleep(50);
        const second = d.automatic(d.end() - 1);
        await d.type(d.end() - 1, "z");
        const third = d.automatic(d.end() - 1);
        assert.equal(await first, null);
        assert.equal(await second, null);
        assert.equal(only(await third).insertText, "abc");
    },
);

scriptHolds("documents do not overtake each other", {}, async (e) => {
    const a = await e.document("# «from a» @steps=3 @us=50000\nx = \n");
    const b = await e.document("# «from b» @steps=3 @us=50000\nx = \n");
    const asked = [a.automatic(a.end() - 1), b.automatic(b.end() - 1)];
    assert.equal(only(await asked[0]).insertText, "from a");
    assert.equal(only(await asked[1]).insertText, "from b");
});

holds("whatever is asked without waiting is answered exactly once", {}, async (e) => {
    const d = await e.document(
        "def f(values):\n    total = 0\n    for v in values:\n        \n    return total\n",
    );
    const asked = [];
    for (const c of "total += v") {
        const at = d.text.indexOf("\n    return");
        await d.type(at, c);
        asked.push(
            d.automatic(at + 1).then(
                (r) => r,
                (error) => assert.equal(error.code, -32800),
            ),
        );
    }
    const answers = await Promise.all(asked);
    assert.ok(answers.slice(0, -1).every((a) => a === null || Array.isArray(a.items)));
    assert.ok(Array.isArray(answers.at(-1).items), JSON.stringify(answers.at(-1)));
});

scriptHolds(
    "a selected completion is the beginning of what is suggested, in its range, or there is nothing",
    {},
    async (e) => {
        const d = await e.document("# «append(x)»\nvalues.ap\n");
        const at = d.end() - 1,
            range = d.range(at - 2, at);
        await d.edit(d.after("«"), d.after("«append"), "pend");
        const result = await d.automatic(d.end() - 1, {
            selectedCompletionInfo: { range: d.range(d.end() - 3, d.end() - 1), text: "append" },
        });
        for (const item of result.items) {
            assert.ok(item.insertText.startsWith("append"), item.insertText);
            assert.deepEqual(item.range, d.range(d.end() - 3, d.end() - 1));
        }
        const other = await d.automatic(d.end() - 1, {
            selectedCompletionInfo: { range: d.range(d.end() - 3, d.end() - 1), text: "apply" },
        });
        for (const item of other.items)
            assert.ok(item.insertText.startsWith("apply"), item.insertText);
        assert.equal(range.start.line, 1);
    },
);

scriptHolds(
    "a weak suggestion is not shown unasked",
    { settings: { debounceMs: 0 } },
    async (e) => {
        const d = await e.document("# «weak» @conf=0.1\nx = \n");
        assert.deepEqual((await d.automatic(d.end() - 1)).items, []);
        assert.equal((await d.invoked(d.end() - 1)).items[0].insertText, "weak");
    },
);

scriptHolds("minConfidence 0 shows all and 1 hides what is less sure", {}, async (e) => {
    const d = await e.document("# «weak» @conf=0.1\nx = \n");
    assert.equal(only(await d.automatic(d.end() - 1)).insertText, "weak");
    await e.configure({ ...all, minConfidence: 0.95 });
    await d.edit(d.after("@conf="), d.after("@conf=0.1"), "0.9");
    assert.deepEqual((await d.automatic(d.end() - 1)).items, []);
});

scriptHolds(
    "at the deadline there is an answer",
    { settings: { ...all, maxMs: 300 } },
    async (e) => {
        const d = await e.document(
            "# «one two three four five six seven eight nine ten» @steps=50 @us=100000\nx = \n",
        );
        const began = Date.now();
        const item = only(await d.automatic(d.end() - 1));
        assert.ok(Date.now() - began < 2500, `${Date.now() - began} ms`);
        assert.ok(
            "one two three four five six seven eight nine ten".startsWith(
                item.insertText.trimEnd(),
            ),
        );
    },
);

scriptHolds(
    "an invoked request skips the debounce",
    { settings: { ...all, debounceMs: 5000 } },
    async (e) => {
        const d = await e.document("# «a»\nx = \n");
        await d.type(d.end() - 1, " ");
        const began = Date.now();
        assert.equal((await d.invoked(d.end() - 1)).items[0].insertText, "a");
        assert.ok(Date.now() - began < 2000, `${Date.now() - began} ms`);
    },
);

scriptHolds(
    "a model that fails is an error for who asked and nothing for who types",
    {},
    async (e) => {
        const d = await e.document("# «a» @fail\nx = \n");
        assert.deepEqual((await d.automatic(d.end() - 1)).items, []);
        await assert.rejects(d.invoked(d.end() - 1), code(-32803));
    },
);

// ---- what may not be read ----

for (const name of [".env", ".env.local", "id_rsa", "server.pem"]) {
    holds(`nothing is suggested in ${name}`, {}, async (e) => {
        const text = "# «secret»\nTOKEN = \n";
        const d = await e.document(text, { uri: file(text, `/${name}`), language: "plaintext" });
        assert.deepEqual((await d.automatic(d.end() - 1))?.items, []);
    });
}

holds(
    "nothing is suggested where it is switched off",
    { settings: { ...all, enable: false } },
    async (e) => {
        const d = await e.document("# «a»\nx = \n");
        assert.deepEqual((await d.automatic(d.end() - 1)).items, []);
    },
);

holds(
    "nothing is suggested in a language that is switched off",
    { settings: { ...all, languages: { python: false } } },
    async (e) => {
        const d = await e.document("# «a»\nx = \n");
        assert.deepEqual((await d.automatic(d.end() - 1)).items, []);
    },
);

// ---- drafts ----

scriptHolds(
    "drafts are whole snapshots in order, and end with the answer",
    { options: { draft: true } },
    async (e) => {
        const d = await e.document("# «one two three four» @steps=8 @us=50000\nx = \n");
        const item = only(await d.automatic(d.end() - 1));
        const drafts = e.heard("$/redraft/draft");
        assert.ok(drafts.length > 0, "there are drafts");
        drafts.forEach((p, i) => {
            assert.ok(i === 0 || p.seq > drafts[i - 1].seq, "seq grows");
            assert.equal(p.id, drafts[0].id);
            assert.ok(Array.isArray(p.items));
            for (const one of p.items)
                assert.ok(
                    "one two three four".startsWith(one.insertText.trimEnd()),
                    one.insertText,
                );
        });
        assert.equal(item.insertText, "one two three four");
        await sleep(200);
        assert.equal(
            e.heard("$/redraft/draft").length,
            drafts.length,
            "none comes after the answer",
        );
    },
);

scriptHolds("no drafts come to who did not ask for them", {}, async (e) => {
    const d = await e.document("# «one two three four» @steps=8 @us=20000\nx = \n");
    await d.automatic(d.end() - 1);
    assert.deepEqual(e.heard("$/redraft/draft"), []);
});

// ---- code actions ----

const bad = "def f():\n    x = bad\n    return bad + x\n";

holds("a cursor that moves is offered nothing", {}, async (e) => {
    const d = await e.document(bad);
    assert.deepEqual((await d.actions(d.range(9, 9), 2)) ?? [], []);
});

holds(
    "a selection is offered rewrites without an edit, and the kinds asked for are honoured",
    {},
    async (e) => {
        const d = await e.document(bad);
        const range = d.range(9, d.end());
        const actions = await d.actions(range);
        assert.ok(actions.length > 0);
        for (const a of actions) {
            assert.equal(typeof a.title, "string");
            assert.match(a.kind, /^(refactor\.rewrite|quickfix)/);
            assert.equal(a.edit, undefined);
            assert.notEqual(a.data, undefined);
        }
        for (const [only_, some] of [
            ["refactor", true],
            ["refactor.rewrite", true],
            ["source", false],
            ["refactor.extract", false],
        ])
            assert.equal(((await d.actions(range, 1, [only_])) ?? []).length > 0, some, only_);
    },
);

async function rewriteOf(d, range) {
    return (await d.actions(range)).find(
        (a) => a.kind.startsWith("refactor.rewrite") && !a.disabled,
    );
}

scriptHolds("a rewrite is resolved to an edit of the version seen", {}, async (e) => {
    const d = await e.document(bad);
    const action = await rewriteOf(d, d.range(9, d.end()));
    const resolved = await e.request("codeAction/resolve", action);
    assert.equal(d.changed(resolved.edit), bad.replaceAll("bad", "good"));
    assert.ok(resolved.edit.documentChanges, "as documentChanges");
});

holds("a rewrite is resolved to an edit inside what was selected", {}, async (e) => {
    const d = await e.document(bad);
    const from = d.after("f():\n"),
        to = d.after("x = bad\n");
    const resolved = await e.request("codeAction/resolve", await rewriteOf(d, d.range(from, to)));
    if (!resolved.edit) return;
    const text = d.changed(resolved.edit);
    assert.ok(text.startsWith(bad.slice(0, from)) && text.endsWith(bad.slice(to)), text);
});

holds("a rewrite of text that has changed since is refused", {}, async (e) => {
    const d = await e.document(bad);
    const action = await rewriteOf(d, d.range(9, d.end()));
    await d.type(d.after("x = b"), "b");
    await assert.rejects(e.request("codeAction/resolve", action), code(-32801));
});

scriptHolds("a rewrite whose text changes while it is made is refused", {}, async (e) => {
    const d = await e.document(`# @steps=10 @us=100000\n${bad}`);
    const action = await rewriteOf(d, d.range(d.after("f():\n"), d.end()));
    const asked = e.request("codeAction/resolve", action);
    await sleep(200);
    await d.type(d.after("x = b"), "b");
    await assert.rejects(asked, code(-32801));
});

scriptHolds("a resolve can be cancelled", {}, async (e) => {
    const d = await e.document(`# @steps=50 @us=100000\n${bad}`);
    const source = new lsp.CancellationTokenSource();
    const asked = e.request(
        "codeAction/resolve",
        await rewriteOf(d, d.range(d.after("f():\n"), d.end())),
        source.token,
    );
    await sleep(100);
    source.cancel();
    await assert.rejects(asked, code(-32800));
});

const old = {
    capabilities: {
        textDocument: {
            ...capabilities.textDocument,
            codeAction: {
                codeActionLiteralSupport:
                    capabilities.textDocument.codeAction.codeActionLiteralSupport,
            },
        },
        workspace: { ...capabilities.workspace, workspaceEdit: {} },
    },
};

scriptHolds(
    "a client that cannot resolve gets a command, its answer at once, and then the edit",
    old,
    async (e) => {
        const d = await e.document(`# @steps=4 @us=100000\n${bad}`);
        const action = await rewriteOf(d, d.range(d.after("f():\n"), d.end()));
        assert.equal(action.edit, undefined);
        const began = Date.now();
        assert.equal(
            await e.run(action.command.command, ...(action.command.arguments ?? [])),
            null,
        );
        assert.ok(Date.now() - began < 300, `${Date.now() - began} ms`);
        await e.until(() => e.applied.length > 0, "workspace/applyEdit");
        assert.equal(d.changed(e.applied[0].edit), d.text.replaceAll("bad", "good"));
        assert.ok(e.applied[0].edit.changes, "as changes");
    },
);

scriptHolds("an edit that the client does not apply is not sent again", old, async (e) => {
    const d = await e.document(bad);
    e.applies = false;
    const action = await rewriteOf(d, d.range(9, d.end()));
    await e.run(action.command.command, ...(action.command.arguments ?? []));
    await e.until(() => e.applied.length > 0, "workspace/applyEdit");
    await sleep(300);
    assert.equal(e.applied.length, 1);
});

// ---- commands ----

holds("an unknown command is refused", {}, async (e) => {
    await assert.rejects(e.run("redraft.noSuch"), code(-32602));
    await assert.rejects(e.request("workspace/executeCommand", {}), code(-32602));
});

holds("the last request can be explained, also when there was none", {}, async (e) => {
    await e.run("redraft.explainLast");
    const d = await e.document("def f(x):\n    return \n");
    await d.automatic(d.end() - 1);
    await e.run("redraft.explainLast");
});

scriptHolds("a full accept runs the item's command, whose answer is null", {}, async (e) => {
    const d = await e.document("# «a + b»\nx = \n");
    const item = only(await d.automatic(d.end() - 1));
    await d.type(d.end() - 1, item.insertText);
    assert.ok(item.command, "the item has a command");
    assert.equal(await e.run(item.command.command, ...(item.command.arguments ?? [])), null);
    assert.ok(Array.isArray((await d.automatic(d.end() - 1)).items));
});

// ---- settings and status ----

holds("settings are pulled for the section redraft, and again when they change", {}, async (e) => {
    assert.ok(e.pulled[0].some((i) => i.section === "redraft"));
    await e.configure(all);
});

holds(
    "a wrong value is complained of once and the one before kept",
    { settings: { ...all, quality: "much" } },
    async (e) => {
        const complaints = () =>
            [...e.heard("window/showMessage"), ...e.heard("window/logMessage")].filter((m) =>
                /quality/.test(m.message),
            );
        await e.until(() => complaints().length > 0, "a complaint");
        await e.configure(e.settings);
        assert.equal(complaints().length, 1);
    },
);

scriptHolds(
    "a setting that is taken back counts no more",
    { settings: { ...all, enable: false } },
    async (e) => {
        const d = await e.document("# «a»\nx = \n");
        assert.deepEqual((await d.automatic(d.end() - 1)).items, []);
        await e.configure(all);
        assert.equal(only(await d.automatic(d.end() - 1)).insertText, "a");
    },
);

holds(
    "textDocument/completion is there only behind its setting",
    { options: { completion: true } },
    async (e) => {
        assert.ok(e.offered.completionProvider);
        const d = await e.document("# «alpha»\nx = \n");
        const result = await e.request("textDocument/completion", {
            textDocument: { uri: d.uri },
            position: d.position(d.end() - 1),
            context: { triggerKind: 1 },
        });
        const items = Array.isArray(result) ? result : (result?.items ?? []);
        if (scripted)
            assert.ok(
                items.some((i) =>
                    (i.textEdit?.newText ?? i.insertText ?? i.label).includes("alpha"),
                ),
                JSON.stringify(result),
            );
    },
);

holds("the status is one of four kinds, said on change only", {}, async (e) => {
    const d = await e.document("x = \n");
    await d.invoked(4);
    await d.invoked(4);
    const said = e.heard("$/redraft/status");
    assert.ok(said.length > 0);
    said.forEach((s, i) => {
        assert.ok(["Normal", "Warning", "Error", "Inactive"].includes(s.kind));
        assert.equal(typeof s.busy, "boolean");
        assert.ok(i === 0 || JSON.stringify(s) !== JSON.stringify(said[i - 1]), "it is said twice");
    });
});

holds("the log holds nothing of the text", {}, async (e) => {
    const d = await e.document("# «qwertz_secret»\nqwertz_secret = \n");
    await d.invoked(d.end() - 1);
    await d.actions(d.range(0, d.end()));
    const heard = JSON.stringify([
        ...e.heard("window/logMessage"),
        ...e.heard("window/showMessage"),
        ...e.heard("$/logTrace"),
    ]);
    assert.ok(!heard.includes("qwertz") && !e.server.stderr.includes("qwertz"));
});
