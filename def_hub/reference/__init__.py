"""The half of the method that takes detail from reference photographs."""
