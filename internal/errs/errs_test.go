package errs

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestKindOf(t *testing.T) {
	f := func(err error, want Kind) {
		t.Helper()
		if got := KindOf(err); got != want {
			t.Fatalf("KindOf(%v) = %v, want %v", err, got, want)
		}
	}
	base := errors.New("cause")
	f(nil, OK)
	f(base, Internal)
	f(E(Conflict, "x"), Conflict)
	f(fmt.Errorf("op: %w", E(Limited, "x")), Limited)
	f(Wrap(Invalid, E(Conflict, "x")), Invalid) // the outermost word counts
	f(Wrap(Invalid, nil), OK)
	f(context.DeadlineExceeded, Unavailable)
	f(E(NotFound, "a: %w", context.Canceled), NotFound)
	if !errors.Is(E(Internal, "a: %w", base), base) {
		t.Fatal("the cause is lost")
	}
}

func TestEveryKindIsTranslated(t *testing.T) {
	for k := OK; k < numKinds; k++ {
		if k.String() == "" || k.HTTPStatus() < 200 {
			t.Errorf("kind %d has no row", k)
		}
		if k == OK || k == Exhausted { // Exhausted shares ResourceExhausted with Limited
			continue
		}
		if got := FromGRPC(k.GRPCCode()); got != k {
			t.Errorf("%v -> gRPC %d -> %v", k, k.GRPCCode(), got)
		}
	}
	if Kind(200).HTTPStatus() != 500 || FromGRPC(2) != Internal || FromGRPC(999) != Internal {
		t.Error("an unknown kind must be Internal")
	}
	if Conflict.Retryable() || !Unavailable.Retryable() {
		t.Error("Retryable is wrong")
	}
}

func TestRetryAfter(t *testing.T) {
	err := fmt.Errorf("op: %w", WithRetryAfter(E(Limited, "slow down"), time.Second))
	if RetryAfter(err) != time.Second || KindOf(err) != Limited {
		t.Fatalf("%v %v", RetryAfter(err), KindOf(err))
	}
	if RetryAfter(Wrap(Exhausted, err)) != time.Second {
		t.Fatal("a new kind hides the wait")
	}
	if RetryAfter(errors.New("x")) != 0 || WithRetryAfter(nil, time.Second) != nil {
		t.Fatal("no wait was asked for")
	}
}

func TestUnreached(t *testing.T) {
	err := fmt.Errorf("10.0.0.1: %w", Unreached(WithRetryAfter(E(Exhausted, "no route"), time.Second)))
	if !IsUnreached(err) || KindOf(err) != Exhausted || RetryAfter(err) != time.Second {
		t.Fatalf("%v %v %v", IsUnreached(err), KindOf(err), RetryAfter(err))
	}
	if IsUnreached(nil) || IsUnreached(E(Unavailable, "quarantined")) || Unreached(nil) != nil {
		t.Fatal("what was not marked is unreached")
	}
}
