package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"bloq-agent/cmd/internal/built"
	"bloq-agent/daemon"
	"bloq-agent/daemon/config"
	"bloq-agent/daemon/harden"
	"bloq-agent/daemon/profile"
	"bloq-agent/daemon/systemd"
	"bloq-agent/ipc"
	"bloq-agent/ipc/client"
	"bloq-agent/ipc/server"
	"bloq-agent/store"

	"github.com/spf13/cobra"
)

func serveCommand() *cobra.Command {
	var path, storeName, level, format string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run the daemon",
		Args:  noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			hardened := harden.Process() // before there is anything to read
			if !oneOf(storeName, "", "keyring", "file", "memory") {
				return fail(ipc.ExitUsage, "bloq-agent serve --help", "--store %q: keyring, file or memory", storeName)
			}
			if !oneOf(level, "", "debug", "info", "warn", "error") {
				return fail(ipc.ExitUsage, "bloq-agent serve --help", "--log-level %q: debug, info, warn or error", level)
			}
			if err := mustExist(cmd, path); err != nil {
				return err
			}
			// A handler of our own, so that a reader of stderr who leaves does not end
			// the process. It is not Ignore, which the commands of sinks would inherit.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
			log, drain, err := daemon.NewLogger(os.Stderr, format)
			if err != nil {
				return fail(ipc.ExitUsage, "bloq-agent serve --help", "--log-format %v", err)
			}
			defer drain()
			if hardened != nil {
				log.Warn().Err(hardened).Msg("the process is open to other programs; going on")
			}
			options := daemon.Options{Version: built.Version(), Store: storeName, Log: log, LogLevel: level}
			if err := places(cmd, path, &options); err != nil {
				return err
			}
			listener, kept, err := listen(cmd)
			if err != nil {
				return err
			}
			defer func() { _ = listener.Close() }()
			options.Listener, options.Kept = listener, kept
			options.Confine, options.Writes = true, append(options.Writes, filepath.Dir(listener.Addr().String()))
			d, err := daemon.New(options)
			// That daemon has another socket, so no command of ours reaches it.
			var held *store.InUseError
			if errors.As(err, &held) {
				return fail(ipc.ExitInternal, fmt.Sprintf("kill %d", held.PID), "%v", err)
			}
			if errors.Is(err, store.ErrInUse) {
				return fail(ipc.ExitInternal, "bloq-agent status", "%v", err)
			}
			if err != nil {
				return err
			}
			return serve(d)
		}),
	}
	cmd.Flags().StringVar(&path, "config", "", configUsage)
	cmd.Flags().StringVar(&storeName, "store", "", "where new logins rest: keyring, file, or memory, which forgets them at exit (default: the configuration's, else keyring)")
	cmd.Flags().StringVar(&level, "log-level", "", "debug, info, warn or error (default: the configuration's, else info)")
	cmd.Flags().StringVar(&format, "log-format", "auto", "auto, json or console")
	return cmd
}

// places sets where everything of ours lies.
func places(cmd *cobra.Command, path string, o *daemon.Options) (err error) {
	if o.ConfigPath, err = configPath(cmd, path); err != nil {
		return err
	}
	if o.StateDir, err = config.StateDir(os.Getenv); err != nil {
		return fail(ipc.ExitUsage, "", "%v", err)
	}
	keys, err := config.KeyDir(os.Getenv)
	if err != nil {
		return fail(ipc.ExitUsage, "", "%v", err)
	}
	// A key may come to be there later, and the daemon can't make directories
	// then. If it can't now, a login that wants the key will say so.
	_ = os.MkdirAll(keys, 0o700)
	o.Writes = []string{keys}
	credentials := os.Getenv("CREDENTIALS_DIRECTORY")
	o.Stores = profile.Stores{
		Keyring: store.NewKeyring(), File: store.NewFile(o.StateDir, store.NewKey(keys, credentials)), Memory: store.NewMemory(),
		Credentials: credentials,
	}
	return nil
}

// serve runs d until SIGTERM or SIGINT; SIGHUP reloads.
func serve(d *daemon.Daemon) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	return d.Run(ctx, reload)
}

// listen is the socket that systemd passed, else one of our own; and what
// systemd held for the daemon before.
func listen(cmd *cobra.Command) (net.Listener, []*os.File, error) {
	// Whatever the daemon makes is nobody else's.
	syscall.Umask(0o077)
	l, kept, err := systemd.Activated()
	if l == nil && err == nil {
		l, err = bind(cmd)
	}
	return l, kept, err
}

func bind(cmd *cobra.Command) (net.Listener, error) {
	flag, err := cmd.Flags().GetString("socket")
	if err != nil {
		return nil, err
	}
	path, err := client.Locate(flag)
	var l net.Listener
	if err == nil {
		l, err = server.Listen(path)
	}
	var dir *server.DirError
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, ipc.ErrPathTooLong):
		return nil, fail(ipc.ExitUsage, "bloq-agent serve --socket /tmp/bloq/agent.sock", "%s: %v", path, ipc.ErrPathTooLong)
	case errors.Is(err, server.ErrInUse) && !inTheWay(path):
		return nil, fail(ipc.ExitInternal, "bloq-agent status", "%v", err)
	case errors.As(err, &dir) && dir.Repairable:
		return nil, fail(ipc.ExitUsage, "chmod go-w "+ipc.ShellWord(dir.Dir), "%v", err)
	case errors.As(err, &dir):
		return nil, fail(ipc.ExitUsage, "", "%v", err)
	case inTheWay(path): // of a daemon that runs, too, which then makes its socket again
		return nil, fail(ipc.ExitInternal, "mv "+ipc.ShellWord(path)+" "+ipc.ShellWord(path+".old"), "%s is in the way and is no socket", path)
	}
	if errors.Is(err, os.ErrPermission) && flag == "" {
		return nil, fail(ipc.ExitInternal, "export BLOQ_AGENT_SOCK=$HOME/.bloq-agent/agent.sock", "%v", err)
	}
	return nil, fail(ipc.ExitInternal, "", "%v", err)
}

// inTheWay reports whether what is at path keeps a daemon from making its socket there.
func inTheWay(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode().Type() != os.ModeSocket
}

func oneOf(s string, allowed ...string) bool {
	for _, a := range allowed {
		if s == a {
			return true
		}
	}
	return false
}
