// What people can ask for. Each command says where the cursor or selection is and lets the server do the rest: its edits come
// back as `workspace/applyEdit`, its findings as diagnostics, its words as messages.
import {
    ConfigurationTarget,
    LogOutputChannel,
    QuickPickItem,
    commands,
    window,
    workspace,
} from "vscode";

import { Server } from "./server";
import { Status } from "./status";

type Handler = () => Promise<unknown>;

// One command of the server on the active editor's text. The range is the selection, or left out where there is none and
// the server means the whole text then.
async function ask(
    server: Server,
    command: string,
    more: object = {},
    wholeText = false,
): Promise<unknown> {
    const editor = window.activeTextEditor;
    const client = server.running;
    if (!client) throw new Error("it is not running");
    if (!editor) return undefined;
    const convert = client.code2ProtocolConverter;
    const range =
        wholeText && editor.selection.isEmpty ? {} : { range: convert.asRange(editor.selection) };
    return client.sendRequest("workspace/executeCommand", {
        command,
        arguments: [
            { ...convert.asVersionedTextDocumentIdentifier(editor.document), ...range, ...more },
        ],
    });
}

async function rewrite(server: Server): Promise<void> {
    if (window.activeTextEditor?.selection.isEmpty ?? true) {
        void window.showInformationMessage("Select the text to rewrite first.");
        return;
    }
    const instruction = await window.showInputBox({
        title: "Rewrite selection",
        prompt: "What should change? Leave it empty to have the lines written anew.",
    });
    if (instruction !== undefined)
        await ask(server, "redraft.rewrite", instruction ? { instruction } : {});
}

async function explain(server: Server): Promise<void> {
    if (!server.running) throw new Error("it is not running");
    const last = await server.running.sendRequest<{ message?: string } | null>(
        "workspace/executeCommand",
        { command: "redraft.explainLast", arguments: [] },
    );
    if (last?.message) void window.showInformationMessage(`redraft: ${last.message}`);
}

// Changes the value where it is set, the workspace before the user.
async function toggle(): Promise<void> {
    const all = workspace.getConfiguration("redraft", window.activeTextEditor?.document.uri);
    const at = all.inspect<boolean>("enable");
    const target =
        at?.workspaceFolderValue !== undefined
            ? ConfigurationTarget.WorkspaceFolder
            : at?.workspaceValue !== undefined
              ? ConfigurationTarget.Workspace
              : ConfigurationTarget.Global;
    await all.update("enable", !all.get("enable", true), target);
}

async function menu(status: Status): Promise<void> {
    const on = workspace
        .getConfiguration("redraft", window.activeTextEditor?.document.uri)
        .get("enable", true);
    const items: (QuickPickItem & { command: string })[] = [
        {
            label: on ? "$(circle-slash) Switch off" : "$(check) Switch on",
            command: "redraft.toggle",
        },
        { label: "$(question) Why did nothing show?", command: "redraft.explain" },
        { label: "$(output) Show output", command: "redraft.showOutput" },
        { label: "$(debug-restart) Restart", command: "redraft.restart" },
        { label: "$(gear) Settings", command: "redraft.settings" },
    ];
    const picked = await window.showQuickPick(items, { title: status.line() });
    if (picked) await commands.executeCommand(picked.command);
}

export function handlers(
    server: Server,
    status: Status,
    output: LogOutputChannel,
): Record<string, Handler> {
    return {
        "redraft.rewriteSelection": () => rewrite(server),
        "redraft.fillHole": () => ask(server, "redraft.fill"),
        "redraft.fixDoubtfulHere": () => ask(server, "redraft.fixDoubtful"),
        "redraft.showDoubtfulHere": () => ask(server, "redraft.showDoubtful", {}, true),
        "redraft.explain": () => explain(server),
        "redraft.toggle": toggle,
        "redraft.restart": () => server.restart(),
        "redraft.showOutput": async () => output.show(),
        "redraft.menu": () => menu(status),
        "redraft.settings": async () => {
            await commands.executeCommand("workbench.action.openSettings", "redraft.");
        },
    };
}
