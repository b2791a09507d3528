// workbench.js INSTALLED VSIX REDRAFT PICTURES - the packaged extension in VS Code's own workbench, in Chromium.
//
// INSTALLED is install.sh's folder, REDRAFT the program. Ghost text is waited for, looked at and accepted; a selection is
// rewritten; the status bar is asked why. Pictures of each go to PICTURES. Nothing but loopback is reached, and all that is
// written lies in a folder of its own.
"use strict";
const assert = require("node:assert/strict");
const { execFileSync, spawn } = require("node:child_process");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");

const [installed, vsix, redraft, pictures] = process.argv.slice(2).map((p) => path.resolve(p));
const { chromium } = require(path.join(installed, "node_modules/playwright-core"));
const entry = path.join(installed, "node_modules/code-server/out/node/entry.js");
const patience = 120000;

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "redraft-workbench-"));
const place = (name) => path.join(folder, name);

const text = `def total(orders):
    result = 0
    for order in orders:
        result += order.price
    return result


def average(orders):
    result = 0
    for order in orders:
        result
    return result / len(orders)
`;

function prepare() {
    for (const f of ["home/.config/code-server", "project", "data/User", "extensions", "run"])
        fs.mkdirSync(place(f), { recursive: true, mode: 0o700 });
    fs.mkdirSync(pictures, { recursive: true });
    fs.writeFileSync(place("project/orders.py"), text);
    fs.writeFileSync(
        place("data/User/settings.json"),
        JSON.stringify({
            "redraft.path": redraft,
            "redraft.minConfidence": 0,
            "editor.inlineSuggest.enabled": true,
            "editor.quickSuggestions": { other: "off" },
            "editor.wordBasedSuggestions": "off",
            "editor.minimap.enabled": false,
            "editor.fontFamily": "DejaVu Sans Mono",
            "workbench.startupEditor": "none",
            "workbench.colorTheme": "Default Light Modern",
            "workbench.tips.enabled": false,
            "chat.commandCenter.enabled": false,
            "telemetry.telemetryLevel": "off",
            "security.workspace.trust.enabled": false,
            "extensions.autoCheckUpdates": false,
            "extensions.ignoreRecommendations": true,
            "files.autoSave": "off",
            "breadcrumbs.enabled": false,
        }),
    );
}

function environment() {
    const env = { ...process.env, HOME: place("home"), XDG_RUNTIME_DIR: place("run") };
    for (const name of Object.keys(env))
        if (/^(XDG_(CONFIG|DATA|CACHE|STATE)_HOME|REDRAFT_|VSCODE_)/.test(name)) delete env[name];
    return env;
}

async function freePort() {
    const s = net.createServer().listen(0, "127.0.0.1");
    await new Promise((done) => s.on("listening", done));
    const { port } = s.address();
    await new Promise((done) => s.close(done));
    return port;
}

const options = (port) => [
    "--auth",
    "none",
    "--bind-addr",
    `127.0.0.1:${port}`,
    "--user-data-dir",
    place("data"),
    "--extensions-dir",
    place("extensions"),
    "--disable-telemetry",
    "--disable-update-check",
    "--disable-workspace-trust",
];

async function listening(port) {
    for (const end = Date.now() + patience; ; ) {
        const open = await new Promise((done) => {
            const s = net
                .connect(port, "127.0.0.1", () => done(true))
                .on("error", () => done(false));
            s.on("connect", () => s.end());
        });
        if (open) return;
        assert.ok(Date.now() < end, "code-server does not listen");
        await new Promise((done) => setTimeout(done, 200));
    }
}

async function openPage(port) {
    const browser = await chromium.launch({
        executablePath: "/usr/bin/chromium",
        args: ["--no-sandbox"],
    });
    const page = await browser.newPage({ viewport: { width: 900, height: 480 } });
    await page.route("**", (r) =>
        ["127.0.0.1", "localhost", ""].includes(new URL(r.request().url()).hostname)
            ? r.continue()
            : r.abort(),
    );
    page.setDefaultTimeout(patience);
    await page.goto(`http://127.0.0.1:${port}/?folder=${encodeURIComponent(place("project"))}`);
    await page.getByText("orders.py").first().click();
    await page.locator(".monaco-editor .view-line").first().waitFor();
    return { browser, page };
}

async function picture(page, name) {
    const file = path.join(pictures, `${name}.png`);
    await page.screenshot({ path: file });
    assert.ok(fs.statSync(file).size < 150 * 1024, `${file} is too large`);
}

async function run(page, command) {
    await page.keyboard.press("F1");
    await page.locator(".quick-input-widget input").waitFor();
    await page.keyboard.type(command);
    await page.locator(".quick-input-list .monaco-list-row").first().waitFor();
    await page.waitForTimeout(300);
    await page.keyboard.press("Enter");
}

async function toLine(page, line) {
    await page.keyboard.press("Control+g");
    await page.locator(".quick-input-widget input").waitFor();
    await page.keyboard.type(`${line}`);
    await page.keyboard.press("Enter");
}

const saved = () => fs.readFileSync(place("project/orders.py"), "utf8");

async function save(page, changed) {
    await page.keyboard.press("Escape");
    await page.keyboard.press("Control+s");
    for (const end = Date.now() + patience; !changed(saved()); ) {
        assert.ok(Date.now() < end, `the file is\n${saved()}`);
        await page.waitForTimeout(200);
    }
}

// Typed again until something is suggested: the provider may not have been there the first time.
async function ghost(page, typed) {
    const shown = page.locator(".ghost-text, .ghost-text-decoration").first();
    for (let i = 0; i < 10; i++) {
        await page.keyboard.type(typed);
        try {
            await shown.waitFor({ timeout: 8000 });
            return;
        } catch {
            for (let k = 0; k < typed.length; k++) await page.keyboard.press("Backspace");
        }
    }
    throw new Error("no ghost text");
}

async function session(page) {
    const item = page.locator('[id*="redraft.status"]').first();
    await item.waitFor();
    await toLine(page, 11);
    await page.keyboard.press("End");
    await ghost(page, " +=");
    await picture(page, "vscode-ghost-text");
    await page.keyboard.press("Tab");
    await save(page, (now) => /^ {8}result \+=\s*\S+/.test(now.split("\n")[10]));
    console.log(`accepted: ${saved().split("\n")[10]}`);

    await item.click();
    await page.locator(".quick-input-list .monaco-list-row").first().waitFor();
    await page.waitForTimeout(300);
    await picture(page, "vscode-status");
    await page.keyboard.press("Escape");

    await toLine(page, 8);
    for (let i = 0; i < 5; i++) await page.keyboard.press("Shift+ArrowDown");
    await run(page, "redraft: Rewrite Selection");
    await page.getByText("Rewrite selection", { exact: true }).waitFor();
    await page.keyboard.press("Enter");
    await page.waitForTimeout(5000);
    await picture(page, "vscode-rewrite");

    await run(page, "redraft: Explain Last Suggestion");
    const said = page.locator(".notification-list-item-message", { hasText: "redraft:" }).first();
    await said.waitFor();
    console.log(`explained: ${await said.innerText()}`);
}

async function main() {
    prepare();
    const port = await freePort();
    execFileSync(process.execPath, [entry, ...options(port), "--install-extension", vsix], {
        env: environment(),
        stdio: "inherit",
    });
    const server = spawn(process.execPath, [entry, ...options(port), place("project")], {
        env: environment(),
        stdio: ["ignore", "ignore", "inherit"],
    });
    const gone = new Promise((done) => server.on("close", done));
    let browser, page;
    try {
        await listening(port);
        ({ browser, page } = await openPage(port));
        await session(page);
    } catch (e) {
        if (page) await page.screenshot({ path: path.join(folder, "failed.png") });
        console.error(`${e.stack}\nsee ${folder}`);
        process.exitCode = 1;
    } finally {
        await browser?.close();
        server.kill("SIGTERM");
        await gone;
        try {
            execFileSync(redraft, ["stop"], { env: environment(), stdio: "ignore" });
        } catch {
            // There was none.
        }
    }
    if (!process.exitCode) fs.rmSync(folder, { recursive: true, force: true });
}

main();
