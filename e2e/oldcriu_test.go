package e2e_test

import (
	"strings"
	"testing"
)

// oldCRIU tells the version of Debian 12's, and with what it is started.
const oldCRIU = `#!/bin/sh
[ "$1" != --version ] || { echo Version: 3.17.1; exit; }
echo "$*, CRIU_CONFIG_FILE=$CRIU_CONFIG_FILE"
`

// On a host whose CRIU would abort on the hook nothing is installed, in whichever
// way it is asked for, and check says no, with the remedy.
func TestOldCRIU(t *testing.T) {
	m := newMachine(t)
	m.write(t, "/usr/local/bin/criu", oldCRIU, 0o755)
	const (
		reason = "/usr/local/bin/criu is CRIU 3.17: a CRIU before 3.19 aborts when a runtime starts it and its configuration names an action script"
		remedy = "install CRIU 3.19 or later"
	)
	for _, flags := range []string{"", "--runtime runc", "--runtime criu", "--in-front", "--in-front --runtime criu", "--dry-run"} {
		got := m.ipcCR(append([]string{"install"}, strings.Fields(flags)...)...)
		if want := "ipc-cr: install: " + reason + ": every checkpoint and restore would fail: " + remedy + "\n"; got != (said{1, "", want}) {
			t.Errorf("install %s: %+v, want %q", flags, got, want)
		}
		m.want(t, false, machineScript, "/etc/criu", "/usr/local/sbin/criu")
	}

	got := m.ipcCR("run", "--", "criu", "dump", "-t", "1")
	if got.status != 0 || got.out != "dump -t 1, CRIU_CONFIG_FILE=\n" || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, reason+": "+remedy) {
		t.Errorf("run: %+v", got)
	}

	// Installed before criu became an older one, or by hand.
	m.write(t, defaultConf, "action-script "+machineScript+"\n", 0o644)
	m.write(t, machineScript, oldCRIU, 0o755)
	text := m.ipcCR("check").out
	for _, want := range []string{
		"no   hook of criu: " + reason + ", and " + defaultConf + " line 1 does: every checkpoint and restore fails\n     remedy: " + remedy + ", or ipc-cr uninstall\n",
		"no   in front of criu for services: " + reason + "\n     remedy: " + remedy + ", then ipc-cr install --in-front\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("check does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "yes  hook") || strings.Contains(text, "yes  in front") {
		t.Errorf("check says yes:\n%s", text)
	}
}
