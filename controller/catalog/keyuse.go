package catalog

import (
	"context"
	"time"

	"paddock/controller/store"
	pb "paddock/proto/paddock/v1"
)

// usePrecision is how exact the stored time of a key's last use is: a key in steady use costs one write in so long.
const usePrecision = time.Hour

// SaveKeyUse stores when keys were last used here, where the record is older than usePrecision. Calls do not wait for it;
// what a crash loses of it is that much.
func (s *Service) SaveKeyUse(ctx context.Context) error {
	for _, k := range s.view.keysOf(func(k *keyEntry) bool { return k.usedAt().Sub(k.lastUsed) >= usePrecision }) {
		if err := s.saveUse(ctx, k.ID, k.usedAt()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) saveUse(ctx context.Context, id string, at time.Time) error {
	_, err := s.write(ctx, "save key use", "use of "+id, func() (store.Txn, error) {
		rec := &pb.KeyRecord{}
		rev, err := s.get(ctx, store.Key(id), rec)
		if err != nil || rev == 0 || !at.After(asTime(rec.GetLastUsed())) { // revoked, or another router saw it later
			return store.Txn{}, err
		}
		rec.LastUsed = asTimestamp(at)
		p, err := put(store.Key(id), rec)
		return store.Txn{Guards: []store.Guard{{Key: store.Key(id), ModRevision: rev}}, Puts: []store.Put{p}}, err
	})
	return err
}
