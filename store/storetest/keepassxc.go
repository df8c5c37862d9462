package storetest

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// A KeePassXC is the Secret Service of a bus of its own, with an open database that
// is called Mine. As it comes, it asks its person for consent in a window.
type KeePassXC struct {
	*SecretService
	display string
}

// keepassxcConfig turns the Secret Service on, and off what would get in the way.
const keepassxcConfig = `[General]
ConfigVersion=2
UpdateCheckMessageShown=true
[FdoSecrets]
Enabled=true
[GUI]
CheckForUpdates=false
`

// keepassxcDatabase has one group, which the Secret Service may use.
const keepassxcDatabase = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<KeePassFile>
<Meta><DatabaseName>Mine</DatabaseName><CustomData><Item><Key>FDO_SECRETS_EXPOSED_GROUP</Key><Value>{00112233-4455-6677-8899-aabbccddeeff}</Value></Item></CustomData></Meta>
<Root><Group><UUID>%s</UUID><Name>Root</Name></Group></Root>
</KeePassFile>
`

// StartKeePassXC runs one until the test ends, or skips the test where that is not
// possible.
func StartKeePassXC(t *testing.T) *KeePassXC {
	t.Helper()
	for _, program := range []string{"keepassxc", "keepassxc-cli", "xdotool"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("no " + program + ": apt-get install -y --no-install-recommends keepassxc xdotool xvfb")
		}
	}
	k := &KeePassXC{display: StartX(t), SecretService: StartBus(t, false)}
	home := filepath.Dir(k.config)
	// It would hand its work to another one that it finds by a file in TMPDIR.
	k.Env = append(k.Env, "DISPLAY="+k.display, "QT_QPA_PLATFORM=xcb", "XDG_CONFIG_HOME="+home, "TMPDIR="+home)
	id := []byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")
	for path, text := range map[string]string{
		"keepassxc/keepassxc.ini": keepassxcConfig, "in.xml": fmt.Sprintf(keepassxcDatabase, base64.StdEncoding.EncodeToString(id)),
	} {
		path = filepath.Join(home, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	make := exec.Command("keepassxc-cli", "import", "-p", home+"/in.xml", home+"/mine.kdbx")
	make.Env, make.Stdin = k.Env, strings.NewReader(password+"\n"+password+"\n")
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	k.Start(t)
	return k
}

// Start runs the program, and returns when its database is open. One that ran before
// must have been killed.
func (k *KeePassXC) Start(t *testing.T) {
	t.Helper()
	cmd := exec.Command("keepassxc", "--pw-stdin", filepath.Join(filepath.Dir(k.config), "mine.kdbx"))
	cmd.Env, cmd.Stdin = k.Env, strings.NewReader(password+"\n")
	start(t, cmd)
	k.PID = cmd.Process.Pid
	for deadline := time.Now().Add(30 * time.Second); !k.opened(t); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("KeePassXC did not open its database")
		}
	}
}

func (k *KeePassXC) opened(t *testing.T) bool {
	t.Helper()
	c, err := dbus.Connect(k.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var path dbus.ObjectPath
	err = c.Object(secretsName, secretsPath).Call("org.freedesktop.Secret.Service.ReadAlias", 0, "default").Store(&path)
	if err != nil || path == "/" {
		return false
	}
	locked, err := c.Object(secretsName, path).GetProperty("org.freedesktop.Secret.Collection.Locked")
	return err == nil && locked.Value() == false
}

// Windows is how many windows ask for consent now.
func (k *KeePassXC) Windows(t *testing.T) int {
	t.Helper()
	out, _ := k.xdotool(t, "search", "--onlyvisible", "--name", "Access Request").Output() // exits 1 if there are none
	return len(strings.Fields(string(out)))
}

// Allow answers the next window that asks for consent, as soon as it is there, and
// Dismiss closes it. They return when it is gone.
func (k *KeePassXC) Allow(t *testing.T) { k.key(t, "Return") }

// Dismiss is what is said at Allow.
func (k *KeePassXC) Dismiss(t *testing.T) { k.key(t, "Escape") }

func (k *KeePassXC) key(t *testing.T, name string) {
	t.Helper()
	for _, args := range [][]string{
		{"search", "--sync", "--onlyvisible", "--name", "Access Request", "windowfocus", "--sync"},
		{"key", name}, // to whatever has the focus: a window that closes at the key would miss its release
	} {
		if out, err := k.xdotool(t, args...).CombinedOutput(); err != nil {
			t.Fatalf("xdotool %v: %v: %s", args, err, out)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); k.Windows(t) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("the window stays after %s", name)
		}
	}
}

func (k *KeePassXC) xdotool(t *testing.T, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "xdotool", args...)
	cmd.Env = k.Env
	return cmd
}
