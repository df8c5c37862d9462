package main

import (
	"bytes"
	"errors"

	"bloq-agent/ipc"

	"github.com/spf13/cobra"
)

func lockCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "stop handing out tokens, until unlock",
		Long: `Stop handing out tokens, and drop every secret from the daemon's memory. Until
"bloq-agent unlock" the helper gets exit status 3, over restarts too. A refresh
token that only memory has stays there: a login in the memory store, or one whose
new refresh token could not be saved. --force drops that too, and the login is
lost. If a token file could not be removed, the exit status is 5: the agent is
locked all the same, and the file is removed when that can be done.`,
		Args: noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			l, err := dial(cmd)
			if err != nil {
				return err
			}
			var s ipc.Status
			if err := l.post(ipc.RouteLock, ipc.Lock{Force: force}, &s); err != nil {
				return err
			}
			for _, p := range s.Profiles {
				if p.State == ipc.StateLocked && p.Warning != "" {
					complain("warning: %s: %s", p.Profile, p.Warning)
				}
			}
			return printf("locked\n")
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "drop refresh tokens that only memory has, too")
	return cmd
}

func unlockCommand() *cobra.Command {
	var passphraseStdin bool
	cmd := &cobra.Command{
		Use:   "unlock",
		Short: "undo lock, and open the file store's key if it has a passphrase",
		Long: `Undo "bloq-agent lock", and open the file store's key if it is under a
passphrase. A keyring is unlocked in your desktop session; this asks it again.`,
		Args: noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			l, err := dial(cmd)
			if err != nil {
				return err
			}
			var p ipc.Passphrase
			if passphraseStdin {
				if p.Passphrase, err = readSecret("passphrase"); err != nil {
					return err
				}
			}
			if err := l.unlock(p); err != nil {
				return err
			}
			return printf("unlocked\n")
		}),
	}
	cmd.Flags().BoolVar(&passphraseStdin, "passphrase-stdin", false, "read the passphrase from stdin")
	return cmd
}

// unlock asks for a passphrase only if the daemon says that it takes one.
func (l link) unlock(p ipc.Passphrase) error {
	err := l.post(ipc.RouteUnlock, p, new(ipc.Status))
	var f *failure
	if p.Passphrase != nil || !errors.As(err, &f) || !f.passphrase {
		return err
	}
	passphrase, askErr := askSecret("passphrase of the file store", "bloq-agent unlock --passphrase-stdin")
	if askErr != nil {
		return askErr
	}
	defer clear(passphrase)
	if len(passphrase) == 0 {
		return err
	}
	return l.post(ipc.RouteUnlock, ipc.Passphrase{Passphrase: passphrase}, new(ipc.Status))
}

func storeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "store", Short: "move a login to another store, or protect the file store", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(moveCommand(), protectCommand())
	return cmd
}

func moveCommand() *cobra.Command {
	var profile, to string
	cmd := &cobra.Command{
		Use:   "move --to STORE",
		Short: "move a login to another store: keyring or file",
		Long: `Move a login to another store. The new copy is written and read back before the
old one is dropped.`,
		Args: noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return fail(ipc.ExitUsage, "bloq-agent store move --to file", "--to is missing")
			}
			l, err := dial(cmd)
			if err != nil {
				return err
			}
			var s ipc.ProfileStatus
			if err := l.post(ipc.RouteStore, ipc.Move{Profile: profile, To: to}, &s); err != nil {
				return err
			}
			if s.Warning != "" {
				complain("warning: %s", s.Warning)
			}
			if err := printf("moved profile %s to the %s store\n", s.Profile, s.Store); err != nil || s.StoreNote == "" {
				return err
			}
			return printf("%s: %s store: %s\n", s.Profile, s.Store, s.StoreNote)
		}),
	}
	profileFlag(cmd, &profile)
	cmd.Flags().StringVar(&to, "to", "", "keyring or file")
	return cmd
}

func protectCommand() *cobra.Command {
	var passphraseStdin bool
	cmd := &cobra.Command{
		Use:   "protect",
		Short: "put the file store's key under a passphrase",
		Long: `Put the file store's key under a passphrase. From then on the daemon needs
"bloq-agent unlock" after each start.`,
		Args: noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			l, err := dial(cmd)
			if err != nil {
				return err
			}
			passphrase, err := newPassphrase(passphraseStdin)
			if err != nil {
				return err
			}
			defer clear(passphrase)
			if err := l.post(ipc.RouteProtect, ipc.Passphrase{Passphrase: passphrase}, new(ipc.Status)); err != nil {
				return err
			}
			return printf("the file store's key is under the passphrase now\n")
		}),
	}
	cmd.Flags().BoolVar(&passphraseStdin, "passphrase-stdin", false, "read the passphrase from stdin")
	return cmd
}

func newPassphrase(stdin bool) ([]byte, error) {
	if stdin {
		return readSecret("passphrase")
	}
	const instead = "bloq-agent store protect --passphrase-stdin"
	first, err := askSecret("new passphrase of the file store", instead)
	if err != nil {
		return nil, err
	}
	again, err := askSecret("the same again", instead)
	if err != nil {
		return nil, err
	}
	defer clear(again)
	if !bytes.Equal(first, again) {
		return nil, fail(ipc.ExitUsage, "bloq-agent store protect", "the two are not the same")
	}
	return first, nil
}
