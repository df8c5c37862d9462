package main

import (
	"cmp"
	"os"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/daemon"
	"bloq-agent/daemon/config"
	"bloq-agent/ipc"
	"bloq-agent/store/trusted"

	"github.com/spf13/cobra"
)

func refreshCommand() *cobra.Command {
	var profile string
	cmd := &cobra.Command{
		Use:   "refresh",
		Short: "replace the access token now",
		Args:  noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			l, err := dial(cmd)
			if err != nil {
				return err
			}
			var s ipc.Refreshed
			if err := l.post(ipc.RouteRefresh, ipc.Named{Profile: profile}, &s); err != nil {
				return err
			}
			if s.Skipped {
				ago := time.Since(s.IssuedAt).Round(time.Second)
				return printf("%s was refreshed %d s ago; access token good until %s\n", s.Profile, int(ago.Seconds()), clockTime(s.ExpiresAt))
			}
			return printf("refreshed %s; access token good until %s\n", s.Profile, clockTime(s.ExpiresAt))
		}),
	}
	profileFlag(cmd, &profile)
	return cmd
}

func logoutCommand() *cobra.Command {
	var profile string
	var deleteKeys bool
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "forget a login",
		Long: `Forget a login: its secrets leave the store and the daemon. Bloq has no way to
revoke a refresh token; --delete-keys deletes the client keys that bought it. If
a token file could not be removed, the exit status is 5, and the file is removed
when that can be done.`,
		Args: noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			l, err := dial(cmd)
			if err != nil {
				return err
			}
			deleteAfterwards := func() error { return nil }
			if deleteKeys {
				if deleteAfterwards, err = ownKeys(cmd, l, profile); err != nil {
					return err
				}
			}
			var done ipc.Named
			err = l.post(ipc.RouteForget, ipc.Named{Profile: profile}, &done)
			if err == nil {
				err = printf("forgot profile %s\n", done.Profile)
			} else if now, statusErr := l.status(profile); statusErr != nil || now.Store != "" {
				return err // it may be logged in still
			}
			// Last, because a login whose keys are gone cannot be repaired.
			return cmp.Or(deleteAfterwards(), err)
		}),
	}
	profileFlag(cmd, &profile)
	cmd.Flags().BoolVar(&deleteKeys, "delete-keys", false, "delete the profile's client keys at Bloq too")
	return cmd
}

// ownKeys returns a function that deletes the client keys of a profile at Bloq. It
// needs nothing that a logout takes away.
func ownKeys(cmd *cobra.Command, l link, profile string) (deleteThem func() error, err error) {
	s, err := l.status(profile)
	if err != nil {
		return nil, err
	}
	if s.ClientID == "" {
		return nil, fail(ipc.ExitUsage, "bloq-agent keys list", "%s: its client keys are not known", s.Profile)
	}
	client, token, err := keysClient(l, s)
	if err != nil {
		return nil, err
	}
	return func() error {
		defer clear(token)
		if err := client.DeleteKey(cmd.Context(), token, s.ClientID); err != nil && !isGone(err) {
			f := endpointError(err).(*failure)
			f.text = "the client keys " + s.ClientID + " are left at Bloq: " + f.text
			return f
		}
		return printf("deleted client keys %s\n", s.ClientID)
	}, nil
}

func keysClient(l link, s ipc.ProfileStatus) (*accounts.Client, []byte, error) {
	token, err := l.accountToken(s.Profile)
	if err != nil {
		return nil, nil, err
	}
	client, err := l.accounts(accounts.Endpoints{Login: s.LoginURL, Token: s.TokenURL, Keys: s.KeysURL, Nodes: s.NodesURL})
	return client, token, err
}

func keysCommand() *cobra.Command {
	var profile string
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "list, create and delete client keys at Bloq",
		Long: `List, create and delete client keys at Bloq. It takes an account token, which
lasts 12 hours from a login with a password.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVarP(&profile, "profile", "p", os.Getenv("BLOQ_PROFILE"), "profile (default: $BLOQ_PROFILE, else the only one, else default)")
	with := func(f func(cmd *cobra.Command, c *accounts.Client, token []byte, args []string) error) func(*cobra.Command, []string) error {
		return runner(func(cmd *cobra.Command, args []string) error {
			l, err := dial(cmd)
			if err != nil {
				return err
			}
			s, err := l.status(profile)
			if err != nil {
				return err
			}
			client, token, err := keysClient(l, s)
			if err != nil {
				return err
			}
			defer clear(token)
			return f(cmd, client, token, args)
		})
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "list client IDs", Args: noArgs, RunE: with(listKeys)},
		&cobra.Command{
			Use: "create", Short: "create client keys and print them: the secret is shown this once",
			Args: noArgs, RunE: with(createKey),
		},
		&cobra.Command{Use: "delete ID", Short: "delete client keys", Args: oneArg("ID"), RunE: with(deleteKey)},
	)
	return cmd
}

func listKeys(cmd *cobra.Command, c *accounts.Client, token []byte, _ []string) error {
	keys, err := c.ListKeys(cmd.Context(), token)
	if err != nil {
		return endpointError(err)
	}
	for _, k := range keys {
		created := "-"
		if !k.CreatedAt.IsZero() {
			created = k.CreatedAt.UTC().Format(time.RFC3339)
		}
		if err := printf("%s  %s\n", k.ID, created); err != nil {
			return err
		}
	}
	return nil
}

func createKey(cmd *cobra.Command, c *accounts.Client, token []byte, _ []string) error {
	k, err := c.CreateKey(cmd.Context(), token)
	if err != nil {
		return endpointError(err)
	}
	return printf("client id:     %s\nclient secret: %s\n", k.ID, k.Secret)
}

func deleteKey(cmd *cobra.Command, c *accounts.Client, token []byte, args []string) error {
	err := c.DeleteKey(cmd.Context(), token, args[0])
	switch {
	case isGone(err):
		return fail(ipc.ExitUsage, "bloq-agent keys list", "there are no client keys %q", args[0])
	case err != nil:
		return endpointError(err)
	}
	return printf("deleted client keys %s\n", args[0])
}

func configCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "config", Short: "check the configuration, or say where it is", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&path, "config", "", configUsage)
	with := func(f func(cmd *cobra.Command) error) func(*cobra.Command, []string) error {
		return runner(func(cmd *cobra.Command, _ []string) (err error) {
			if path, err = configPath(cmd, path); err != nil {
				return err
			}
			return f(cmd)
		})
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "check", Short: "say every mistake in the configuration", Args: noArgs,
			RunE: with(func(cmd *cobra.Command) error {
				if err := mustExist(cmd, path); err != nil {
					return err
				}
				c, data, err := config.Load(path)
				if err == nil {
					err = daemon.CheckSinks(c, os.Getenv)
				}
				switch {
				case err != nil:
					return failAll(ipc.ExitUnavailable, trusted.Mend(err), err)
				case data == nil:
					return printf("%s: not there; the defaults hold\n", path)
				}
				return printf("%s: ok\n", path)
			}),
		},
		&cobra.Command{
			Use: "path", Short: "say where the configuration is", Args: noArgs,
			RunE: with(func(*cobra.Command) error { return printf("%s\n", path) }),
		},
	)
	return cmd
}

const configUsage = "configuration file (default: $XDG_CONFIG_HOME/bloq-agent/config.toml)"

// configPath is the flag's value if it was given, else where the configuration
// is looked for.
func configPath(cmd *cobra.Command, flag string) (string, error) {
	if cmd.Flags().Changed("config") {
		return flag, nil
	}
	path, err := config.Path(os.Getenv)
	if err != nil {
		return "", fail(ipc.ExitUsage, "", "%v", err)
	}
	return path, nil
}

// mustExist is for a configuration file that was named: the default one may be
// missing.
func mustExist(cmd *cobra.Command, path string) error {
	if !cmd.Flags().Changed("config") {
		return nil
	}
	if _, err := os.Stat(path); err != nil {
		return fail(ipc.ExitUsage, "bloq-agent config path", "--config: %v", err)
	}
	return nil
}
