package store

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// itemPrefix names the encoding's version.
const itemPrefix = "bloq1:"

// wireItem is an item inside its encoding. []byte is base64 in JSON.
type wireItem struct {
	Origin        string    `json:"origin"`
	RefreshToken  []byte    `json:"refresh_token,omitempty"`
	ClientID      string    `json:"client_id,omitempty"`
	ClientSecret  []byte    `json:"client_secret,omitempty"`
	AccountToken  []byte    `json:"account_token,omitempty"`
	AccountExpiry time.Time `json:"account_expiry,omitzero"`
	Source        string    `json:"source,omitempty"`
	Serial        uint64    `json:"serial,omitempty"`
}

// encodeItem makes one line of printable ASCII. gnome-keyring has lost a whole
// collection over a newline in a secret, and others cut at NUL.
func encodeItem(i Item) ([]byte, error) {
	plain, err := json.Marshal(wireItem{
		Origin: i.Origin, RefreshToken: i.RefreshToken.Reveal(), ClientID: i.ClientID, ClientSecret: i.ClientSecret.Reveal(),
		AccountToken: i.AccountToken.Reveal(), AccountExpiry: i.AccountExpiry, Source: i.Source, Serial: i.Serial,
	})
	defer clear(plain)
	if err != nil {
		return nil, fmt.Errorf("encoding item: %w", err)
	}
	out := make([]byte, 0, len(itemPrefix)+base64.RawStdEncoding.EncodedLen(len(plain)))
	return base64.RawStdEncoding.AppendEncode(append(out, itemPrefix...), plain), nil
}

// decodeItem reads what encodeItem wrote and nothing else: what it read must be
// written again in the same way. Its errors hold nothing of b.
func decodeItem(b []byte) (Item, error) {
	body, ok := bytes.CutPrefix(b, []byte(itemPrefix))
	if !ok {
		return Item{}, fmt.Errorf("%w: it is not of this version", ErrDamaged)
	}
	plain, err := base64.RawStdEncoding.AppendDecode(make([]byte, 0, len(body)), body)
	defer clear(plain)
	if err != nil {
		return Item{}, fmt.Errorf("%w: its encoding is broken", ErrDamaged)
	}
	var w wireItem
	err = json.Unmarshal(plain, &w)
	item := Item{
		Origin: w.Origin, RefreshToken: NewSecret(w.RefreshToken), ClientSecret: NewSecret(w.ClientSecret),
		AccountToken: NewSecret(w.AccountToken), AccountExpiry: w.AccountExpiry, ClientID: w.ClientID, Source: w.Source,
		Serial: w.Serial,
	}
	if err == nil {
		var again []byte
		again, err = encodeItem(item)
		defer clear(again)
		if !bytes.Equal(again, b) {
			err = ErrDamaged
		}
	}
	if err != nil {
		item.Wipe()
		return Item{}, fmt.Errorf("%w: its content is broken", ErrDamaged)
	}
	item.AccountExpiry = inUTC(item.AccountExpiry)
	return item, nil
}
