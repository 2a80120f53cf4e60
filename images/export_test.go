package images

// Next takes a piece and gives it back.
func (t *Part) Next() error {
	p, err := t.take()
	if err == nil {
		t.release(p)
	}
	return err
}
