package distributor

import "github.com/hearth-metrics/hearth/internal/errs"

// tally is what the replicas of one series (or of one metadata entry) have answered so far.
type tally struct {
	replicas                              uint8 // asked
	ok, conflict, invalid, limited, other uint8 // answers by class
	decided                               bool  // the outcome is certain, and counted so
	marked                                bool  // scratch of write.answer
	// final and lost point at what a member said: the first answer that no retry can change, and the last one that a
	// retry can. They are positions in write.causes plus one; 0 = no such answer.
	final, lost int32
}

// add counts one answer; cause is where its text is.
func (t *tally) add(kind errs.Kind, cause int32) {
	switch kind {
	case errs.OK:
		t.ok++
		return
	case errs.Conflict:
		t.conflict++
	case errs.Invalid, errs.TooLarge:
		kind = errs.Invalid
		t.invalid++
	case errs.Limited:
		t.limited++
	default:
		t.other++
	}
	if kind == errs.Conflict || kind == errs.Invalid {
		if t.final == 0 {
			t.final = cause
		}
		return
	}
	t.lost = cause
}

// outcome folds the answers, need of which have to be good, and says whether the ones to come can change it.
//
//   - OK: need replicas stored it.
//   - Conflict or Invalid: enough replicas refused it for good that a quorum is impossible however often it is sent.
//   - Limited: enough replicas are over a limit, or refused it for good, that a quorum is impossible now; if the limit
//     is raised it may be possible.
//   - Unavailable: any other way to miss the quorum. Sending it again may help.
//
// An outcome that is certain does not depend on the order of the answers, except for the choice between Conflict and
// Invalid where both were answered.
func (t *tally) outcome(need int) (kind errs.Kind, certain bool) {
	replicas, ok, limited := int(t.replicas), int(t.ok), int(t.limited)
	if replicas < need {
		return errs.Unavailable, true
	}
	final := int(t.conflict) + int(t.invalid)
	left := replicas - ok - final - limited - int(t.other)
	block := replicas - need + 1 // this many bad answers make a quorum impossible
	switch {
	case ok >= need:
		return errs.OK, true
	case final >= block && t.invalid > t.conflict:
		return errs.Invalid, true
	case final >= block:
		return errs.Conflict, true
	case ok+left >= need, final+left >= block:
		return errs.Unavailable, false
	case limited+final >= block:
		return errs.Limited, true
	}
	return errs.Unavailable, limited+final+left < block
}
