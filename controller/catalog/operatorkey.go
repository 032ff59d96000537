package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"paddock/internal/identity"
)

const (
	operatorNote  = "made at the first start"
	operatorOwner = "this machine"
)

// anyNumber lets the operator's key of this machine be made whatever others there are: without it nobody could revoke them.
func anyNumber(context.Context, NewKey) error { return nil }

// EnsureOperatorKey sees to it that path holds an operator's key, in a file that only its owner can read: the first start
// makes one. A file whose key stands in the store is left alone. While no operator's key works at all (a start that was
// broken off, a new store), the file's own is put into the store. A file that was taken away is made anew: who can do that
// here owns this machine. The key itself is never logged.
func (s *Service) EnsureOperatorKey(ctx context.Context, path string) error {
	content, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.makeOperatorKey(ctx, path)
	}
	if err != nil {
		return fmt.Errorf("operator's key: %w", err)
	}
	id, secret, ok := NewKeyring(s.view, s.opts.Pepper).Parse(strings.TrimSpace(string(content)))
	if !ok {
		return fmt.Errorf("operator's key: %s does not hold a key: remove it to have one made", path)
	}
	keys, err := s.operatorKeys(ctx)
	if err != nil {
		return s.fault("operator's key", err)
	}
	now, works := time.Now(), false
	for _, k := range keys {
		if k.ID == id {
			return nil
		}
		works = works || !k.expired(now)
	}
	if works {
		s.log.Warn("the operator's key in the file was revoked; others work", "file", path)
		return nil
	}
	_, _, err = s.putKey(ctx, NewKey{Role: identity.RoleOperator, Note: operatorNote, Owner: operatorOwner}, id, secret, anyNumber)
	return err
}

// makeOperatorKey writes the file first: a key in the store that nobody has would lock everybody out.
func (s *Service) makeOperatorKey(ctx context.Context, path string) error {
	id, secret := newToken()
	if err := writeSecret(path, []byte(formatToken(id, secret)+"\n"), false); err != nil {
		return fmt.Errorf("operator's key: %w", err)
	}
	if _, _, err := s.putKey(ctx, NewKey{Role: identity.RoleOperator, Note: operatorNote, Owner: operatorOwner}, id, secret, anyNumber); err != nil {
		return err
	}
	s.log.Info("operator's key made", "file", path, "key", id)
	return nil
}
