// Package daemon composes the agent: configuration, profiles, the store, a
// refresher for each login, and the routes of the socket.
//
// It promises that a bad configuration, an unreachable endpoint and a store
// that does not answer each become an answer that says so, not an exit; and
// that nothing it logs, answers on an error, or shows in its status holds a
// secret.
//
// # Goroutines
//
//	goroutine                    started by            ends when
//	Daemon.Run                   the caller            ctx ends, or the server fails
//	server.Server.Serve          Run                   Run shuts the server down
//	one per connection           net/http              the peer or the server closes
//	refresher.Refresher.Run      Daemon.start          its state is halted
//	an attempt                   Refresher.Run         its exchange and save are over (20 s + 10 s)
//	Daemon.tryAgain's            reload                its exchange is over
//	Daemon.reject's              a caller's word       the exchange that it joins is over
//	watcher.run                  Run                   ctx ends
//	three of wake.Watch's        Run                   ctx ends; a frozen system bus keeps one of them
//	callers.Ring.Run             Run                   ctx ends
//	Daemon.runKeeper             Run                   the daemon stops
//	systemd.Watchdog             Run, under systemd    ctx ends
//	Daemon.await                 Daemon.open           the profile is served or replaced, or the daemon stops
//	Daemon.dropLater             Daemon.dropSoon       the copy that was left is deleted, or the daemon stops
//	Daemon.reopen, openAll       reload                each profile was looked at
//	eachProfile's                its caller, waiting   f returns
//	sink.Keeper.attend           Keeper.Wake, Settle   there is nothing to do for its file; a hung disk keeps it
//	sink.Keeper.command          attend                the command ends, or is killed (10 s, or Run returns)
//	two of wake.Clock's          New                   the daemon stops
//	Keyring.Watch's              patience.wait           its context ends
//	a keyring call               store.Keyring         the Secret Service answers
//
// # State
//
// Each piece has one owner: a refresher's loop owns the tokens' schedule, a
// login owns its secrets, a profile's change lock covers what replaces them,
// callers.Ring owns the last requests, a sink.Keeper owns the files that tokens are
// kept in, and Daemon.mu guards the map of profiles and nothing that blocks.
package daemon
