// The language client and its life: find the program, start it, watch it, start it again.
import { Disposable, LogOutputChannel, commands, Uri, window, workspace } from "vscode";
import {
    Executable,
    LanguageClient,
    LanguageClientOptions,
    State,
} from "vscode-languageclient/node";
import * as os from "os";

import { locate } from "./locate";
import { section } from "./settings";
import { Report, Status } from "./status";

export class Server implements Disposable {
    private client?: LanguageClient;
    private turn: Promise<void> = Promise.resolve();

    constructor(
        private readonly output: LogOutputChannel,
        private readonly status: Status,
    ) {}

    // Starts and stops happen one after the other, however fast the commands come.
    restart(): Promise<void> {
        this.turn = this.turn.then(() => this.stopNow()).then(() => this.startNow());
        return this.turn;
    }

    stop(): Promise<void> {
        this.turn = this.turn.then(() => this.stopNow());
        return this.turn;
    }

    dispose(): void {
        void this.stop();
    }

    get running(): LanguageClient | undefined {
        return this.client?.state === State.Running ? this.client : undefined;
    }

    private async startNow(): Promise<void> {
        const found = await locate(workspace.getConfiguration("redraft").get("path", "").trim());
        if ("missing" in found) {
            this.status.show({ kind: "Error", message: found.missing });
            this.output.error(found.missing);
            void this.complain(found.missing);
            return;
        }
        this.output.info(`starting ${found.program} stdio`);
        this.status.show({ kind: "Inactive", busy: true, message: "starting" });
        this.client = this.connect(found.program);
        try {
            await this.client.start();
        } catch (e) {
            const why = `${found.program} did not start: ${e instanceof Error ? e.message : String(e)}`;
            this.status.show({ kind: "Error", message: why });
            void this.complain(why);
        }
    }

    private async stopNow(): Promise<void> {
        const old = this.client;
        this.client = undefined;
        try {
            await old?.dispose();
        } catch (e) {
            this.output.warn(
                `the server did not stop in order: ${e instanceof Error ? e.message : String(e)}`,
            );
        }
        this.status.show({ kind: "Inactive", message: "stopped" });
    }

    private connect(program: string): LanguageClient {
        const run: Executable = {
            command: program,
            args: ["stdio"],
            options: { cwd: os.homedir() },
        };
        const options: LanguageClientOptions = {
            documentSelector: [{ scheme: "file" }, { scheme: "untitled" }],
            initializationOptions: () => section(),
            synchronize: { configurationSection: "redraft" },
            outputChannel: this.output,
            middleware: {
                workspace: {
                    configuration: (params) =>
                        params.items.map((i) =>
                            i.section === "redraft"
                                ? section(i.scopeUri ? Uri.parse(i.scopeUri) : undefined)
                                : null,
                        ),
                    didChangeConfiguration: async () => {
                        await client.sendNotification("workspace/didChangeConfiguration", {
                            settings: { redraft: section() },
                        });
                    },
                },
            },
        };
        const client = new LanguageClient("redraft", "redraft", run, options);
        client.onNotification("$/redraft/status", (report: Report) => this.status.show(report));
        client.onDidChangeState(({ newState }) => this.changed(client, newState));
        return client;
    }

    private changed(client: LanguageClient, state: State): void {
        if (client !== this.client) return;
        void commands.executeCommand("setContext", "redraft.running", state === State.Running);
        if (state === State.Running) this.status.show({ kind: "Normal" });
        if (state === State.Stopped)
            this.status.show({ kind: "Error", message: "the server stopped; see its output" });
    }

    private async complain(why: string): Promise<void> {
        const setPath = "Set Path",
            again = "Try Again",
            log = "Show Output";
        const answer = await window.showErrorMessage(why, setPath, again, log);
        if (answer === setPath)
            await commands.executeCommand("workbench.action.openSettings", "redraft.path");
        if (answer === again) await this.restart();
        if (answer === log) this.output.show();
    }
}
