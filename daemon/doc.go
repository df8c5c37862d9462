// Package daemon composes the agent: configuration, profiles, token files, and the
// routes of the socket. What a profile does is package profile's.
//
// It promises that a bad configuration, records that cannot be read, an
// unreachable endpoint and a store that does not answer each become an answer that
// says so, not an exit. A disk that does not answer holds up no request and no sign of
// life. Nothing that it logs, answers on an error, or shows in its
// status holds a secret.
//
// # Goroutines
//
//	goroutine                    started by            ends when
//	Daemon.Run                   the caller            ctx ends, or the server fails
//	server.Server.Serve          Run                   Run shuts the server down
//	one per connection           net/http              the peer or the server closes
//	refresher.Refresher.Run      a profile             its state is halted
//	an attempt                   Refresher.Run         its exchange and save are over (20 s + 10 s)
//	profile.await                a profile that waits  the profile is served or replaced, or the Set closes
//	Profile.dropLater            a profile             the copy that was left is deleted, or the Set closes
//	Set.background's             a profile, Configure  its exchange or its looks are over
//	Set.each's                   its caller, waiting   f returns
//	Daemon.keepConfig            Run                   ctx ends; a hung disk keeps it
//	config.Watch's               keepConfig, ownSocket ctx ends; a hung disk keeps it
//	config.Compare's             keepConfig            ctx ends; a hung disk keeps it
//	ownSocket.keep               Run                   ctx ends; a hung disk keeps it
//	store.Glance.Look's          a request             its look at the disk is over
//	three of wake.Watch's        Run                   ctx ends; a frozen system bus keeps one of them
//	callers.Ring.Run             Run                   ctx ends
//	Daemon.keepTokensFresh       Run                   ctx ends
//	narrator.keepStatusLine      Run, under systemd    ctx ends
//	systemd.Watchdog             Run, under systemd    ctx ends
//	sink.Keeper.attend           its Wake, Touch, …    there is nothing to do for its file; a hung disk keeps it
//	sink.Keeper.command          attend                the command ends, or is killed (10 s, or Run returns)
//	backlog.run                  NewLogger             the process does: its write may hang
//	two of wake.Clock's          New                   the daemon stops
//	Keyring.Watch's              a storeWatch          its context ends
//	a call of the Keyring's      its caller, waiting   the service answers; its caller leaves and no person is asked; Keyring.Close
//
// # State
//
// Each piece has one owner, which ARCHITECTURE.md names. A request reads the
// configuration, the set of profiles and a profile's state by one atomic load each.
package daemon
