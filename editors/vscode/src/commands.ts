// What people can ask for. Each command says where the cursor or selection is and lets the server do the rest: its edits come
// back as `workspace/applyEdit`, its findings as diagnostics, its words as messages.
import { ConfigurationTarget, LogOutputChannel, QuickPickItem, Range, commands, window, workspace } from "vscode";

import { Server } from "./server";
import { Status } from "./status";

type Handler = () => Promise<void>;

// One command of the server on the active editor's text.
async function ask(server: Server, command: string, more: object = {}): Promise<void> {
    const editor = window.activeTextEditor;
    const client = server.running;
    if (!client) {
        void window.showWarningMessage("redraft is not running.");
        return;
    }
    if (!editor) return;
    const convert = client.code2ProtocolConverter;
    await client.sendRequest("workspace/executeCommand", {
        command,
        arguments: [{
            textDocument: convert.asVersionedTextDocumentIdentifier(editor.document),
            range: convert.asRange(editor.selection),
            ...more,
        }],
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
    if (instruction !== undefined) await ask(server, "redraft.rewrite", instruction ? { instruction } : {});
}

// Where nothing is selected the whole text is meant.
async function onSelectionOrAll(server: Server, command: string): Promise<void> {
    const editor = window.activeTextEditor;
    if (!editor) return;
    const whole = editor.document.validateRange(new Range(0, 0, editor.document.lineCount, 0));
    await ask(server, command, editor.selection.isEmpty
        ? { range: server.running?.code2ProtocolConverter.asRange(whole) }
        : {});
}

// Changes the value where it is set, the workspace before the user.
async function toggle(): Promise<void> {
    const all = workspace.getConfiguration("redraft", window.activeTextEditor?.document.uri);
    const at = all.inspect<boolean>("enable");
    const target = at?.workspaceFolderValue !== undefined ? ConfigurationTarget.WorkspaceFolder
        : at?.workspaceValue !== undefined ? ConfigurationTarget.Workspace : ConfigurationTarget.Global;
    await all.update("enable", !all.get("enable", true), target);
}

async function menu(status: Status): Promise<void> {
    const on = workspace.getConfiguration("redraft", window.activeTextEditor?.document.uri).get("enable", true);
    const items: (QuickPickItem & { command: string })[] = [
        { label: on ? "$(circle-slash) Switch suggestions off" : "$(check) Switch suggestions on", command: "redraft.toggle" },
        { label: "$(question) Why did nothing show?", command: "redraft.explain" },
        { label: "$(output) Show output", command: "redraft.showOutput" },
        { label: "$(debug-restart) Restart", command: "redraft.restart" },
        { label: "$(gear) Settings", command: "redraft.settings" },
    ];
    const picked = await window.showQuickPick(items, { title: status.line() });
    if (picked) await commands.executeCommand(picked.command);
}

export function handlers(server: Server, status: Status, output: LogOutputChannel): Record<string, Handler> {
    return {
        "redraft.rewriteSelection": () => rewrite(server),
        "redraft.fillHole": () => ask(server, "redraft.fill"),
        "redraft.fixDoubtfulHere": () => onSelectionOrAll(server, "redraft.fixDoubtful"),
        "redraft.showDoubtfulHere": () => onSelectionOrAll(server, "redraft.showDoubtful"),
        "redraft.explain": () => ask(server, "redraft.explainLast"),
        "redraft.toggle": toggle,
        "redraft.restart": () => server.restart(),
        "redraft.showOutput": async () => output.show(),
        "redraft.menu": () => menu(status),
        "redraft.settings": async () => {
            await commands.executeCommand("workbench.action.openSettings", "redraft.");
        },
    };
}
