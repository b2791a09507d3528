// The extension: a language client for `redraft stdio`, an item in the status bar, and commands. It holds no logic of
// suggesting or rewriting; that is all the server's.
import { ExtensionContext, commands, window, workspace } from "vscode";

import { handlers } from "./commands";
import { Server } from "./server";
import { Status } from "./status";

let server: Server | undefined;

export async function activate(context: ExtensionContext): Promise<void> {
    const output = window.createOutputChannel("redraft", { log: true });
    const status = new Status();
    const it = (server = new Server(output, status));

    context.subscriptions.push(output, status, it);
    for (const [name, run] of Object.entries(handlers(it, status, output))) {
        context.subscriptions.push(commands.registerCommand(name, () => report(run)));
    }
    context.subscriptions.push(
        workspace.onDidChangeConfiguration((e) => {
            if (e.affectsConfiguration("redraft.path")) void it.restart();
        }),
    );
    await it.restart();
}

export function deactivate(): Promise<void> | undefined {
    return server?.stop();
}

// What somebody asked for and did not get is said to them.
async function report(run: () => Promise<unknown>): Promise<void> {
    try {
        await run();
    } catch (e) {
        void window.showErrorMessage(`redraft: ${e instanceof Error ? e.message : String(e)}`);
    }
}
