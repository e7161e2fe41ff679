"""What lies on Persist: mirror, versions and journal, and every way in which they change."""
