// The item in the status bar: what `$/redraft/status` says, and what the extension itself knows before there is a server.
import {
    Disposable,
    MarkdownString,
    StatusBarAlignment,
    StatusBarItem,
    ThemeColor,
    window,
} from "vscode";

export type Kind = "Normal" | "Warning" | "Error" | "Inactive";
export type Report = { kind: Kind; busy?: boolean; message?: string };

const faces: Record<Kind, { icon: string; background?: string }> = {
    Normal: { icon: "$(sparkle)" },
    Warning: { icon: "$(warning)", background: "statusBarItem.warningBackground" },
    Error: { icon: "$(error)", background: "statusBarItem.errorBackground" },
    Inactive: { icon: "$(circle-slash)" },
};

export class Status implements Disposable {
    private readonly item: StatusBarItem;
    private last: Report = { kind: "Inactive", message: "not started" };

    constructor() {
        this.item = window.createStatusBarItem("redraft.status", StatusBarAlignment.Right, 100);
        this.item.name = "redraft";
        this.item.command = "redraft.menu";
        this.show(this.last);
        this.item.show();
    }

    get report(): Report {
        return this.last;
    }

    show(report: Report): void {
        const face = faces[report.kind] ?? faces.Normal;
        this.last = report;
        this.item.text = `${report.busy ? "$(sync~spin)" : face.icon} redraft`;
        this.item.tooltip = new MarkdownString().appendText(this.line());
        this.item.backgroundColor = face.background ? new ThemeColor(face.background) : undefined;
        this.item.accessibilityInformation = { label: this.line() };
    }

    line(): string {
        const state = this.last.busy
            ? "working"
            : this.last.kind === "Normal"
              ? "ready"
              : this.last.kind.toLowerCase();
        return this.last.message ? `redraft: ${state}: ${this.last.message}` : `redraft: ${state}`;
    }

    dispose(): void {
        this.item.dispose();
    }
}
