// The section `redraft` as the server gets it: what somebody set, and no defaults.
//
// A default of the editor would otherwise count as the user's wish and win over redraft's own configuration file.
import { Uri, workspace } from "vscode";

const names = [
    "enable",
    "mode",
    "quality",
    "minConfidence",
    "maxMs",
    "debounceMs",
    "exclude",
    "languages",
    "diagnostics",
    "cache",
];

export function section(resource?: Uri): Record<string, unknown> {
    const all = workspace.getConfiguration("redraft", resource);
    const out: Record<string, unknown> = {};
    for (const name of names) {
        const at = all.inspect(name);
        const isSet = [at?.globalValue, at?.workspaceValue, at?.workspaceFolderValue].some(
            (v) => v !== undefined,
        );
        const value = all.get(name);
        if (isSet && value !== null) out[name] = value;
    }
    return out;
}
