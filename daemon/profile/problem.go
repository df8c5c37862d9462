package profile

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
	"bloq-agent/store/trusted"
)

// words say why a profile has no token, or why a change of it was refused.
type words struct {
	set  *Set
	name string
}

// Name is the profile's.
func (w words) Name() string { return w.name }

func (w words) needsLogin(detail string) *Problem {
	return &Problem{Kind: NeedsLogin, Phase: Absent, Detail: w.name + ": " + detail, Hint: w.loginCommand()}
}

func (w words) loginCommand() string { return "bloq-agent login --profile " + w.name }

func (w words) lockedProblem() *Problem {
	return &Problem{Kind: NeedsUnlock, Phase: Locked, Detail: w.name + ": locked", Hint: "bloq-agent unlock"}
}

func (w words) internal(doing string, err error) *Problem {
	if problem := w.movedProblem(err); problem != nil {
		return problem
	}
	return &Problem{Kind: Internal, Detail: doing + ": " + err.Error()}
}

// movedProblem is not nil if err says that the state directory is not the one at
// its path any more. A restart opens the one that is there.
func (w words) movedProblem(err error) *Problem {
	var moved *store.MovedError
	if !errors.As(err, &moved) {
		return nil
	}
	return &Problem{Kind: Configuration, Phase: Refused, Detail: w.name + ": " + err.Error(), Hint: w.set.settings.Load().Restart}
}

// restart is the hint for what failed with err, if a restart and then the command
// mend that; else "".
func restart(s *Set, err error, then string) string {
	var moved *store.MovedError
	if !errors.As(err, &moved) {
		return ""
	}
	return s.settings.Load().Restart + ", then: " + then
}

// tokenProblem translates why a refresher has no token.
func (w words) tokenProblem(err error) *Problem {
	if problem := w.movedProblem(err); problem != nil {
		return problem
	}
	var e *refresher.Error
	if !errors.As(err, &e) {
		return &Problem{Kind: Unavailable, Phase: Serving, Detail: w.name + ": " + err.Error(), Hint: "bloq-agent status"}
	}
	switch e.Class {
	case refresher.NeedsLogin:
		problem := w.needsLogin("needs login: " + e.Err.Error())
		problem.Phase = Serving
		return problem
	case refresher.Configuration:
		return &Problem{Kind: Configuration, Phase: Serving, Detail: w.name + ": " + e.Err.Error(), Hint: w.configurationHint(e.Err)}
	}
	detail := w.name + ": no valid token: " + e.Err.Error()
	if e.Valid {
		detail = w.name + ": not replaced: " + e.Err.Error()
	}
	if wait := e.Next.Sub(w.set.clock.Now()); !e.Next.IsZero() && wait > 0 {
		detail += "; next try in " + (wait + time.Second).Truncate(time.Second).String()
	}
	hint := "bloq-agent status"
	if accounts.UnknownAuthority(e.Err) {
		hint = cmp.Or(trusted.Mend(e.Err), w.set.settings.Load().TrustHint, hint)
	}
	return &Problem{Kind: Unavailable, Phase: Serving, Detail: detail, Hint: hint}
}

// storeProblem translates why a store did not do what it was asked. Its Phase is
// that of a profile whose login could not be read for this reason.
func (w words) storeProblem(err error) *Problem {
	if problem := w.movedProblem(err); problem != nil {
		return problem
	}
	var problem *Problem
	var unavailable *store.Unavailable
	var origin *originError
	switch {
	case errors.As(err, &problem):
		return problem
	case w.set.stopping() && errors.Is(err, context.Canceled):
		return stopping
	case errors.Is(err, context.DeadlineExceeded):
		return w.waiting(&Problem{Kind: Unavailable, Detail: w.name + ": the store has not answered in time", Hint: "bloq-agent status"})
	case errors.Is(err, store.ErrNotFound):
		return w.waiting(w.needsLogin("needs login: its secrets are not in the store any more"))
	case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrOtherKey):
		return w.waiting(w.needsLogin("needs login: " + err.Error()))
	case trusted.Mend(err) != "":
		return w.waiting(&Problem{Kind: Configuration, Detail: w.name + ": " + err.Error(), Hint: trusted.Mend(err)})
	case errors.As(err, &origin):
		return &Problem{Kind: Configuration, Phase: Refused, Detail: w.name + ": " + err.Error(), Hint: w.loginCommand()}
	case errors.As(err, &unavailable):
		return w.waiting(w.unavailableProblem(unavailable, err))
	}
	return w.waiting(&Problem{Kind: Configuration, Detail: w.name + ": " + err.Error(), Hint: "bloq-agent status"})
}

func (w words) waiting(problem *Problem) *Problem {
	problem.Phase = Waiting
	return problem
}

func (w words) unavailableProblem(u *store.Unavailable, err error) *Problem {
	kind := Unavailable
	if u.Locked {
		kind = NeedsUnlock
	}
	hint := u.Hint
	if hint == store.HintFile {
		hint += " --profile " + w.name
	}
	return &Problem{Kind: kind, Detail: w.name + ": " + err.Error(), Hint: hint}
}

// configurationHint mends what the endpoint does not accept. A new login does not
// mend a proxy variable, for which nothing was sent; the error says how.
func (w words) configurationHint(err error) string {
	var e *accounts.Error
	if errors.As(err, &e) && e.Unsent {
		return ""
	}
	return w.loginCommand()
}

// storeHint says what to type where st cannot take a login.
func (w words) storeHint(st store.Store, err error) error {
	problem := w.storeProblem(err)
	var u *store.Unavailable
	if !errors.As(err, &u) || st.Name() != "keyring" {
		return problem
	}
	hint := "bloq-agent login --store file"
	if w.name != "default" {
		hint += " --profile " + w.name
	}
	if u.Locked {
		step, _, _ := strings.Cut(u.Hint, ", then: ")
		hint = step + ", or: " + hint
	}
	problem.Hint = hint
	return problem
}

func (w words) adoptionProblem(st store.Store, err error) error {
	var record *recordError
	if errors.As(err, &record) {
		return w.internal("recording the profile", record.err)
	}
	return w.storeProblem(err)
}
