// Where the redraft program is: the setting, then PATH, then the usual places.
//
// Relative entries of PATH are passed over: they would be looked up in a folder that somebody else may have written.
import { constants, promises as fs } from "fs";
import * as os from "os";
import * as path from "path";

const places = [
    "~/.local/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/opt/redraft/bin",
    "/opt/homebrew/bin",
];

export type Found = { program: string } | { missing: string };

function expand(name: string): string {
    return name === "~" || name.startsWith("~/") ? path.join(os.homedir(), name.slice(1)) : name;
}

async function isProgram(name: string): Promise<boolean> {
    try {
        await fs.access(name, constants.X_OK);
        return (await fs.stat(name)).isFile();
    } catch {
        return false;
    }
}

export async function locate(setting: string): Promise<Found> {
    if (setting !== "") {
        const program = expand(setting);
        if (!path.isAbsolute(program))
            return { missing: `redraft.path is "${setting}", which is not an absolute path.` };
        if (!(await isProgram(program)))
            return { missing: `redraft.path is "${setting}", and no program is there.` };
        return { program };
    }
    const folders = (process.env.PATH ?? "").split(path.delimiter).concat(places.map(expand));
    for (const folder of folders.filter((f) => path.isAbsolute(f))) {
        const program = path.join(folder, "redraft");
        if (await isProgram(program)) return { program };
    }
    return { missing: "The redraft program was not found in PATH or in the usual places." };
}
