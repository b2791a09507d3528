#!/bin/sh
# install.sh FOLDER - VS Code for a browser, from npm and Debian's packages: about 300 MB and some minutes. Run once, by hand.
set -eu
folder=$1
for need in chromium rg node npm python3 g++ make pkg-config; do
    command -v $need >/dev/null || {
        echo "missing: $need. On Debian 12, with Node 20 or newer:"
        echo "apt-get install chromium libkrb5-dev libsecret-1-dev ripgrep fonts-dejavu-core python3 g++ make pkg-config"
        exit 1
    }
done
mkdir -p "$folder"
cd "$folder"
top=$(pwd)
quiet='--no-audit --no-fund --loglevel=error'
export npm_config_yes=true
[ -f package.json ] || echo '{"private":true}' >package.json
# Some packages fetch programs in their scripts; only those that build are run, by name.
npm install --ignore-scripts $quiet code-server@4.100.3 playwright-core@1.65.1
cd node_modules/code-server/lib/vscode
npm install --ignore-scripts --omit=dev $quiet
npm rebuild $quiet node-pty @vscode/spdlog native-watchdog @parcel/watcher kerberos @vscode/deviceid
(cd extensions && npm install --ignore-scripts --omit=dev $quiet)
[ -e node_modules.asar ] || ln -s node_modules node_modules.asar
mkdir -p node_modules/@vscode/ripgrep/bin
ln -sf "$(command -v rg)" node_modules/@vscode/ripgrep/bin/rg
cd "$top"
npm rebuild $quiet argon2
echo "installed in $top"
