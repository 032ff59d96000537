package store

import "fmt"

// CheckTxn says whether txn is well-formed and within the limits. Implementations call it first, so that none of them
// takes what another refuses.
func CheckTxn(txn Txn) error {
	writes := len(txn.Puts) + len(txn.Deletes)
	if writes == 0 {
		return fmt.Errorf("store: a transaction without writes")
	}
	if writes > MaxTxnOps || len(txn.Guards) > MaxTxnOps {
		return fmt.Errorf("%w: %d writes and %d guards, at most %d each", ErrTooLarge, writes, len(txn.Guards), MaxTxnOps)
	}
	seen := make(map[string]bool, writes)
	total := 0
	for _, p := range txn.Puts {
		if p.Key == "" || seen[p.Key] {
			return fmt.Errorf("store: key %q is empty or written twice in one transaction", p.Key)
		}
		if len(p.Value) > MaxValueBytes {
			return fmt.Errorf("%w: %s has %d bytes, at most %d", ErrTooLarge, p.Key, len(p.Value), MaxValueBytes)
		}
		seen[p.Key] = true
		total += len(p.Key) + len(p.Value)
	}
	for _, key := range txn.Deletes {
		if key == "" || seen[key] {
			return fmt.Errorf("store: key %q is empty or written twice in one transaction", key)
		}
		seen[key] = true
		total += len(key)
	}
	if total > MaxTxnBytes {
		return fmt.Errorf("%w: the transaction has %d bytes, at most %d", ErrTooLarge, total, MaxTxnBytes)
	}
	return nil
}
