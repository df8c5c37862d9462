package profile

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
)

// The endpoint has replaced the refresh token, and what it says beside that makes
// no sense: the new token is the one that counts.
func TestARefreshTokenBesideABadAccessTokenCounts(t *testing.T) {
	for _, access := range []string{``, `"accessToken":"",`, `"accessToken":null,`, `"accessToken":7,`, `"accessToken":"a\nb",`, `"accessToken":"a","accessToken":"b",`} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			rig := newRigBehind(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}}, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					rec := httptest.NewRecorder()
					h.ServeHTTP(rec, r)
					body := rec.Body.Bytes()
					if r.URL.Path == "/auth/token" {
						if n++; n == 2 { // the first refresh
							var b map[string]string
							_ = json.Unmarshal(body, &b)
							body = []byte(`{` + access + `"refreshToken":"` + b["refreshToken"] + `"}`)
						}
					}
					w.WriteHeader(rec.Code)
					_, _ = w.Write(body)
				})
			})
			time.Sleep(3 * time.Hour)
			synctest.Wait()
			if s := rig.r.Snapshot(); rig.api.Stats().Reuse != 0 || s.Class != refresher.None || !s.Valid() {
				t.Errorf("%q: %d used twice, %v: %v", access, rig.api.Stats().Reuse, s.Class, s.Err)
			}
		})
	}
}

// Buying a successor is a wish beside a good token: that it hangs costs nobody
// anything, and it is not asked for at every refresh.
func TestASuccessorThatCannotBeHadCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{RefreshTTL: 40 * time.Hour})
		rig.keep(t)
		told := 0
		rig.log.hooks.tell = func(EventKind, error) { told++ }
		do(t, rig.api.AddFault(sandbox.Fault{Route: "POST /auth/token", Grant: "clientCredentials", Kind: "hang"}))
		for start := time.Now(); time.Since(start) < 39*time.Hour; time.Sleep(time.Minute) {
			if _, err := rig.r.Token(t.Context(), 0); err != nil {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
		}
		asked := rig.api.Stats().Grants["clientCredentials"] - 1
		t.Logf("10 h before the end with an endpoint that hangs: asked %d times, told %d times, no caller noticed", asked, told)
		if asked < 1 || asked > 2 || told != asked {
			t.Errorf("asked %d times, told %d", asked, told)
		}
	})
}

// A wrong clock of ours does not buy a token that lasts a year at every refresh.
func TestAWrongClockBuysNothing(t *testing.T) {
	for _, off := range []time.Duration{400 * 24 * time.Hour, -400 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			rig := newRig(t, sandbox.Config{Now: func() time.Time { return time.Now().Add(-off) }})
			rig.keep(t)
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			if s := rig.api.Stats(); s.Grants["clientCredentials"] != 1 || s.Grants["refreshToken"] < 40 {
				t.Errorf("our clock %v off: %v", off, s.Grants)
			}
		})
	}
}

// A dead refresh token may be told of by any refusal.
func TestTheKeysHelpWhateverTheRefusal(t *testing.T) {
	for _, f := range []sandbox.Fault{{Status: 400}, {Status: 400, Body: `{"error":"invalid_request"}`}, {Status: 404}, {Status: 401}, {Status: 403, Body: "<html>"}} {
		synctest.Test(t, func(t *testing.T) {
			rig := newRig(t, sandbox.Config{})
			rig.keep(t)
			f.Route, f.Grant, f.Kind = "POST /auth/token", "refreshToken", "status"
			do(t, rig.api.AddFault(f))
			time.Sleep(3 * time.Hour)
			synctest.Wait()
			if s, bought := rig.r.Snapshot(), rig.api.Stats().Grants["clientCredentials"]-1; s.Class != refresher.None || bought == 0 || bought > 6 {
				t.Errorf("%d %q: %v, %d bought in 3 h", f.Status, f.Body, s.Class, bought)
			}
		})
	}
}

// The mark of an exchange stays as long as the endpoint may have rotated, and no
// longer: it is gone after a grant, a refusal, and where nothing was sent.
func TestTheMarkOfAnExchange(t *testing.T) {
	for name, tt := range map[string]struct {
		fault  sandbox.Fault
		refuse bool
		marked bool
	}{
		"grant":             {},
		"refused":           {fault: sandbox.Fault{Kind: "status", Status: 401}},
		"no connection":     {refuse: true},
		"gateway time-out":  {fault: sandbox.Fault{Kind: "status", Status: 504}, marked: true},
		"no answer":         {fault: sandbox.Fault{Kind: "hang"}, marked: true},
		"half an answer":    {fault: sandbox.Fault{Kind: "half", Status: 200, Body: `{"accessToken":"x"}`}, marked: true},
		"captive portal":    {fault: sandbox.Fault{Kind: "status", Status: 200, Body: "<html>"}, marked: true},
		"too many requests": {fault: sandbox.Fault{Kind: "status", Status: 429}},
	} {
		synctest.Test(t, func(t *testing.T) {
			rig := newRig(t, sandbox.Config{})
			rig.log.mark = mark{stateDir(t), "x.intent"}
			if tt.fault.Kind != "" {
				tt.fault.Route, tt.fault.Grant = "POST /auth/token", "refreshToken"
				do(t, rig.api.AddFault(tt.fault))
			}
			rig.net.setRefuse(tt.refuse)
			_, err := rig.log.exchange(t.Context())
			if (err != nil) != (name != "grant") {
				t.Errorf("%s: %v", name, err)
			}
			if _, marked := rig.log.mark.found(); marked != (tt.marked || name == "grant") { // a grant's is for who publishes it
				t.Errorf("%s: marked %v", name, marked)
			}
		})
	}
}
