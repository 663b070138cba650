package errs

import (
	"errors"
	"fmt"
)

// Few joins the first errors of all, and says how many more there are. Otherwise a failure of everything would become
// an answer, or a line of the log, with a part for each of 50,000 tenants. Its kind is that of the first error;
// without any error it is nil.
func Few(all []error) error {
	const few = 5
	var first []error
	more := 0
	for _, err := range all {
		switch {
		case err == nil:
		case len(first) < few:
			first = append(first, err)
		default:
			more++
		}
	}
	if len(first) == 0 {
		return nil
	}
	kind := KindOf(first[0])
	if more > 0 {
		first = append(first, fmt.Errorf("and %d more", more))
	}
	return Wrap(kind, errors.Join(first...))
}
