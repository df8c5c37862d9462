package profile

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store/storetest"
)

// A refresh that fails does not deny the token that there is.
func TestAFailedRefreshBesideAToken(t *testing.T) {
	e := newEndpoint(t, sandbox.Config{})
	s := newPlace(t).open(t)
	p := s.logIn(t, e, "work", "memory")
	do(t, e.api.AddFault(sandbox.Fault{Route: "POST /auth/token", Kind: "status", Status: http.StatusServiceUnavailable}))
	err := p.Refresh(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "work: not replaced: refresh: 503") {
		t.Errorf("%v", err)
	}
	if _, err := p.Token(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// A caller is told what holds up the exchange: a disk that hangs is no fault of the
// endpoint's.
func TestWhatACallerWaitedFor(t *testing.T) {
	disk := storetest.HoldDisk(t)
	e := newEndpoint(t, sandbox.Config{})
	s := newPlace(t).open(t)
	p := s.logIn(t, e, "work", "file")
	held, release := disk.Hold(storetest.AnyCall)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-held
		cancel()
	}()
	err := p.Refresh(ctx)
	if err == nil || err.Error() != "work: the state directory has not answered yet" {
		t.Errorf("%v", err)
	}
}
