package wake_test

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bloq-agent/daemon"
	"bloq-agent/daemon/profile"
	"bloq-agent/daemon/wake"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// lines calls itself with each line of a log.
type lines func(string)

func (f lines) Write(b []byte) (int, error) {
	f(string(b))
	return len(b), nil
}

// A daemon as it is, in a network of its own.
func TestTheDaemonSeesTheNetworkChange(t *testing.T) {
	wake.NoBus(t)
	level := zerolog.GlobalLevel()
	t.Cleanup(func() { zerolog.SetGlobalLevel(level) })
	dir := t.TempDir()
	wake.InNewNetwork(t, func(toggle func()) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		seen := false
		log := lines(func(line string) {
			switch {
			case strings.Contains(line, `"started"`):
				toggle()
			case strings.Contains(line, "the network has changed"):
				seen = true
				cancel()
			}
		})
		listener, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Error(err)
			return
		}
		d, err := daemon.New(daemon.Options{
			Listener: listener, StateDir: dir, ConfigPath: filepath.Join(dir, "config.toml"), LogLevel: "debug",
			Log: zerolog.New(zerolog.SyncWriter(log)), Stores: profile.Stores{Keyring: store.NewKeyring(), Memory: store.NewMemory(), File: store.NewFile(dir, store.NewKey(dir, ""))},
		})
		if err == nil {
			err = d.Run(ctx, nil)
		}
		if err != nil || !seen {
			t.Errorf("seen %v, %v", seen, err)
		}
	})
}
